"""Stable Diffusion as a teacher: the student's own base with its adapters off, so no second U-Net.

Only where that base itself learns ("full" tuning) there is one; see `plain_base`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.weights import load_base
from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.teachers.latents import precision, sample_latents
from triplaneturbo.teachers.twin import twin
from triplaneturbo.utils.random_streams import RandomStreams, randint

Base = Callable[[], AbstractContextManager[UNet2DConditionModel]]
Shade = Callable[[Tensor, Tensor, Tensor], Tensor]  # colours, normals, directions to the camera -> colours


def plain_base(folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Base:
    """The U-Net of the base in a folder, which is nobody's student.

    Raises:
        UserError: it is missing or broken.
    """
    unet, _ = load_base(folder)
    nn.Module.to(unet.requires_grad_(False), device=device, dtype=dtype)
    return lambda: nullcontext(unet)


class StableDiffusion:
    """Looks at one view of each scene, chosen at random.

    Attributes:
        view_by_view: see `sample_latents`.

    Args:
        base: gives the plain U-Net for as long as it is entered.
        vae: with its encoder.
        scheduler: the base's schedule.
        embed: captions -> text embeddings [B, 77, D].
        size: side of the pictures that the VAE encodes.
        shade: how the pictures that the base learned from are lit, where they are; normals get no gradient.
        autocast: precision of its networks; None: that of their weights.
    """

    name = "sd"
    reads: tuple[str, ...] = ("rgb",)

    def __init__(
        self,
        base: Base,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        embed: Callable[[list[str]], Tensor],
        size: int,
        shade: Shade | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.base, self.vae, self.scheduler, self.embed = base, vae, scheduler, embed
        self.size, self.shade, self.autocast = size, shade, autocast
        self.alphas = scheduler.alphas_cumprod
        self.view_by_view = False

    @property
    def networks(self) -> list[nn.Module]:
        """All that needs the device while it is asked, but for the student's own U-Net."""
        return [self.vae.encoder, self.vae.quant_conv]

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Latents of one view of each scene, sampled from the VAE's posterior: [B, 1, 4, h, h]."""
        batch = len(seen.rgb)
        view = randint(rng, 0, seen.rgb.shape[1], batch)
        rows = torch.arange(batch)
        rgb = seen.rgb[rows, view]  # [B, H, W, 3]
        if self.shade is not None and seen.normal is not None:
            back = scenes.cameras.c2w[:, :3, 2].unflatten(0, (-1, scenes.views))[rows, view].to(rgb)
            normal = F.normalize(seen.normal.detach()[rows, view], dim=-1)
            lit = self.shade(rgb, normal, back[:, None, None])
            rgb = torch.lerp(rgb, lit, seen.opacity.detach()[rows, view][..., None])
        images = rgb.movedim(-1, 1) * 2 - 1
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        latents = sample_latents(self.vae, images, rng, self.autocast, self.view_by_view)
        return latents[:, None]

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """The same teacher with a U-Net of its own on the same weights, and that U-Net."""
        other = copy(self)
        with self.base() as unet:
            own = twin(unet)
        other.base = lambda: nullcontext(own)
        return other, own

    def condition(self, seen: Renderings, scenes: SceneBatch) -> tuple[Tensor, Tensor]:
        """Embeddings of the captions and of no caption, [B, 77, D] each."""
        text = self.embed(scenes.prompts)
        return text, self.embed([""]).expand_as(text)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: tuple[Tensor, Tensor], guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The noise in latents [B, 1, 4, h, h] at timesteps [B]."""
        text, empty = condition
        rows = noisy[:, 0]
        with self.base() as unet, precision(self.autocast, rows.device):
            if guided:
                rows, times, text = rows.repeat(2, 1, 1, 1), times.repeat(2), torch.cat((text, empty))
            output = unet(rows.to(unet.dtype), times, encoder_hidden_states=text.to(unet.dtype)).sample
        output = output.float()
        if self.scheduler.config.prediction_type == "v_prediction":
            alpha = self.alphas.to(rows)[times].sqrt()[:, None, None, None]
            output = alpha * output + (1 - alpha**2).sqrt() * rows
        parts = output[:, None].chunk(2) if guided else (output[:, None], None)
        return parts[0], parts[1]
