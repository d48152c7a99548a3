"""What MVDream and RichDreamer's normal-depth model share: V views in one denoiser, told its cameras."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.teachers.joined_views import join_views
from triplaneturbo.teachers.latents import precision
from triplaneturbo.teachers.twin import twin
from triplaneturbo.utils.random_streams import RandomStreams

VIEWS = 4
# The multi-view teachers' authors steer away from this; Stable Diffusion is asked with "" instead.
NEGATIVE = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear,"
    " cropped, lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed,"
    " dehydrated, bad proportions"
)

Embed = Callable[[list[str]], Tensor]  # captions -> text embeddings [B, 77, D]


@dataclass(frozen=True)
class Condition:
    """What a prediction is made for: texts [B, 77, D] and [1, 77, D], camera conditions [B, V, 16]."""

    text: Tensor
    negative: Tensor
    cameras: Tensor


class MultiView:
    """A frozen U-Net on the four views of each scene at once.

    Args:
        unet: with a class embedding of 16 numbers; its self-attentions are joined here.
        embed: the text encoder that it was trained with.
        negative: what guidance steers away from.
        autocast: precision of its networks; None: that of their weights.
    """

    name: str
    reads: tuple[str, ...]

    def __init__(
        self,
        unet: UNet2DConditionModel,
        embed: Embed,
        negative: str = NEGATIVE,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.unet, self.embed, self.negative, self.autocast = unet, embed, negative, autocast
        join_views(unet, VIEWS)
        self.alphas = schedule()

    @property
    def networks(self) -> list[nn.Module]:
        """All that needs the device while it is asked."""
        return [self.unet]

    def _cameras(self, cameras: Cameras) -> Tensor:
        """The condition of each camera [B * V, 16]."""
        raise NotImplementedError

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """What it diffuses: [B, V, 4, h, h], differentiable in `seen`."""
        raise NotImplementedError

    def condition(self, seen: Renderings, scenes: SceneBatch) -> Condition:
        """Embeddings of captions and of the negative prompt, and the cameras.

        Raises:
            ValueError: the scenes have another number of views than the network joins.
        """
        if scenes.views != VIEWS:
            raise ValueError(f"{self.name} looks at {VIEWS} views of a scene, not at {scenes.views}")
        cameras = self._cameras(scenes.cameras).unflatten(0, (-1, VIEWS))
        return Condition(self.embed(scenes.prompts), self.embed([self.negative]), cameras)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Condition, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The noise in [B, V, 4, h, w] at timesteps [B]; with and without the caption in one batch."""
        texts, cameras, rows = condition.text, condition.cameras, noisy
        if guided:
            texts = torch.cat((texts, condition.negative.expand_as(texts)))
            cameras, rows, times = (torch.cat((x, x)) for x in (cameras, rows, times))
        with precision(self.autocast, rows.device):
            output = self.unet(
                rows.flatten(0, 1).to(self.unet.dtype),  # [B * V, 4, h, w], scene after scene
                times.repeat_interleave(VIEWS),
                encoder_hidden_states=texts.repeat_interleave(VIEWS, 0).to(self.unet.dtype),
                class_labels=cameras.flatten(0, 1).to(rows.device, self.unet.dtype),
            ).sample
        parts = output.float().unflatten(0, (-1, VIEWS)).chunk(2 if guided else 1)
        return parts[0], parts[1] if guided else None

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """The same teacher with a U-Net of its own on the same weights, and that U-Net."""
        other = copy(self)
        other.unet = twin(self.unet)
        join_views(other.unet, VIEWS)
        return other, other.unet


def schedule() -> Tensor:
    """Cumulative products of the schedule that all three teachers have [1000]."""
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return scheduler.alphas_cumprod


def placed(cameras: Cameras, turned: bool) -> Tensor:
    """Camera-to-world matrices [V, 4, 4] with the eye moved to distance 1.

    Args:
        turned: by -90 degrees about z, so that our front, +x, comes to theirs, -y.
    """
    c2w = cameras.c2w.detach().float().clone()
    c2w[:, :3, 3] = c2w[:, :3, 3] / (c2w[:, :3, 3].norm(dim=-1, keepdim=True) + 1e-8)
    if turned:
        quarter = c2w.new_tensor([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        c2w = quarter @ c2w
    return c2w
