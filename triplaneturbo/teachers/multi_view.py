"""Base class of the multi-view teachers MVDream and RichDreamer, which denoise four views jointly."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.latents import autocast_context
from triplaneturbo.teachers.loader import Embed
from triplaneturbo.teachers.multi_view_attention import use_multi_view_attention
from triplaneturbo.teachers.twin import twin
from triplaneturbo.utils.random_streams import RandomStreams

VIEWS = 4
# Negative prompt of the multi-view teachers' authors; Stable Diffusion uses "" instead.
NEGATIVE = (
    "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear,"
    " cropped, lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed,"
    " dehydrated, bad proportions"
)


@dataclass(frozen=True)
class Condition:
    """Conditioning.

    Attributes:
        text: text embeddings [B, 77, D].
        negative: that of the negative prompt, which guidance leads away from [1, 77, D].
        empty: that of the prompt of DDIM inversion [1, 77, D].
        cameras: [B, V, 16].
    """

    text: Tensor
    negative: Tensor
    empty: Tensor
    cameras: Tensor


class MultiView:
    """A frozen U-Net that denoises the four views of each scene jointly.

    Args:
        unet: U-Net with a 16-dimensional class embedding; its self-attention is made multi-view here.
        embed: the text encoder that it was trained with.
        negative: negative prompt of classifier-free guidance.
        autocast: autocast precision of the networks; None for the precision of the weights.

    Attributes:
        refining: see `TeacherContext`.
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
        self.refining = False
        use_multi_view_attention(unet, VIEWS)
        self.alphas = stable_diffusion_alphas()

    @property
    def networks(self) -> list[nn.Module]:
        """Networks that must be on the device during a call."""
        return [self.unet]

    def _cameras(self, cameras: Cameras) -> Tensor:
        """Return the camera conditioning [B * V, 16]."""
        raise NotImplementedError

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """See `Teacher.encode`: [B, V, 4, h, h]."""
        raise NotImplementedError

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> Condition:
        """Return embeddings of the captions, the negative and the empty prompt, and the cameras.

        Raises:
            ValueError: if the scenes do not have four views.
        """
        if scenes.views != VIEWS:
            raise ValueError(f"{self.name} needs {VIEWS} views per scene, not {scenes.views}")
        cameras = self._cameras(scenes.cameras).unflatten(0, (-1, VIEWS))
        negative = self.embed([self.negative])
        empty = self.embed([""]) if self.refining else negative
        return Condition(self.embed(scenes.prompts), negative, empty, cameras)

    def unconditional(self, condition: Condition) -> Condition:
        """See `Teacher.unconditional`: the prompt of DDIM inversion, from the same cameras."""
        return replace(condition, text=condition.empty.expand_as(condition.text))

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Condition, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the noise in [B, V, 4, h, w] at timesteps [B]; both predictions run as one batch."""
        texts, cameras, rows = condition.text, condition.cameras, noisy
        if guided:
            texts = torch.cat((texts, condition.negative.expand_as(texts)))
            cameras, rows, times = (torch.cat((x, x)) for x in (cameras, rows, times))
        with autocast_context(self.autocast, rows.device):
            output = self.unet(
                rows.flatten(0, 1).to(self.unet.dtype),  # [B * V, 4, h, w]
                times.repeat_interleave(VIEWS),
                encoder_hidden_states=texts.repeat_interleave(VIEWS, 0).to(self.unet.dtype),
                class_labels=cameras.flatten(0, 1).to(rows.device, self.unet.dtype),
            ).sample
        parts = output.float().unflatten(0, (-1, VIEWS)).chunk(2 if guided else 1)
        return parts[0], parts[1] if guided else None

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """Return a copy of this teacher with its own U-Net that shares the weights, and that U-Net."""
        other = copy(self)
        other.unet = twin(self.unet)
        use_multi_view_attention(other.unet, VIEWS)
        return other, other.unet


def stable_diffusion_alphas() -> Tensor:
    """Return alpha bar [1000] of Stable Diffusion's noise schedule, which all three teachers share."""
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return scheduler.alphas_cumprod


def normalized_c2w(cameras: Cameras, rotate: bool) -> Tensor:
    """Return camera-to-world matrices [V, 4, 4] with the eye at distance 1 from the origin.

    Args:
        rotate: rotate by -90 degrees about z, from our front (+x) to that of the teachers (-y).
    """
    c2w = cameras.c2w.detach().float().clone()
    c2w[:, :3, 3] = c2w[:, :3, 3] / (c2w[:, :3, 3].norm(dim=-1, keepdim=True) + 1e-8)
    if rotate:
        rotation = c2w.new_tensor([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        c2w = rotation @ c2w
    return c2w
