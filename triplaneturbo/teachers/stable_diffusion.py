"""Stable Diffusion teacher: the student's own base with the adapters disabled, so no second U-Net is needed.

Only full fine-tuning, which trains the base itself, needs a separate U-Net; see `plain_base`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.weights import load_base
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.latents import autocast_context, sample_latents
from triplaneturbo.teachers.loader import (
    Base,
    MetaTeacher,
    Shade,
    TeacherContext,
    TeacherLoader,
    meta_embed,
)
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.teachers.twin import twin
from triplaneturbo.utils.random_streams import RandomStreams, randint

SIZE = 512  # image size of Stable Diffusion 2.1-base, in pixels


def plain_base(folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> Base:
    """Load a separate, frozen U-Net of the base model in a folder.

    Raises:
        UserError: if it is missing or broken.
    """
    unet, _ = load_base(folder)
    nn.Module.to(unet.requires_grad_(False), device=device, dtype=dtype)
    return lambda: nullcontext(unet)


class StableDiffusion:
    """Stable Diffusion teacher; reads the colours of one random view per scene.

    Attributes:
        view_by_view: see `sample_latents`.

    Args:
        base: context that yields the U-Net without adapters.
        vae: needs its encoder only.
        scheduler: noise scheduler of the base.
        embed: captions -> text embeddings [B, 77, D].
        size: image size of the VAE encoder, in pixels.
        shade: shading of the base's training images, if any; normals receive no gradient through it.
        autocast: autocast precision of the networks; None for the precision of the weights.
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
        """Networks that must be on the device during a call, except for the student's U-Net."""
        return [self.vae.encoder, self.vae.quant_conv]

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Sample the VAE latents of one random view per scene: [B, 1, 4, h, h]."""
        batch = len(renderings.rgb)
        view = randint(rng, 0, renderings.rgb.shape[1], batch)
        rows = torch.arange(batch)
        rgb = renderings.rgb[rows, view]  # [B, H, W, 3]
        if self.shade is not None and renderings.normal is not None:
            to_camera = scenes.cameras.c2w[:, :3, 2].unflatten(0, (-1, scenes.views))[rows, view].to(rgb)
            normal = F.normalize(renderings.normal.detach()[rows, view], dim=-1)
            shaded = self.shade(rgb, normal, to_camera[:, None, None])
            rgb = torch.lerp(rgb, shaded, renderings.opacity.detach()[rows, view][..., None])
        images = rgb.movedim(-1, 1) * 2 - 1
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        latents = sample_latents(self.vae, images, rng, self.autocast, self.view_by_view)
        return latents[:, None]

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """Return a copy of this teacher with its own U-Net that shares the weights, and that U-Net."""
        other = copy(self)
        with self.base() as unet:
            unet_copy = twin(unet)
        other.base = lambda: nullcontext(unet_copy)
        return other, unet_copy

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> tuple[Tensor, Tensor]:
        """Return embeddings of the captions and of the empty prompt, [B, 77, D] each."""
        text = self.embed(scenes.prompts)
        return text, self.embed([""]).expand_as(text)

    def unconditional(self, condition: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """See `Teacher.unconditional`: the empty prompt."""
        return condition[1], condition[1]

    def predict(
        self, noisy: Tensor, times: Tensor, condition: tuple[Tensor, Tensor], guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the noise in latents [B, 1, 4, h, h] at timesteps [B]."""
        text, empty = condition
        rows = noisy[:, 0]
        with self.base() as unet, autocast_context(self.autocast, rows.device):
            if guided:
                rows, times, text = rows.repeat(2, 1, 1, 1), times.repeat(2), torch.cat((text, empty))
            output = unet(rows.to(unet.dtype), times, encoder_hidden_states=text.to(unet.dtype)).sample
        output = output.float()
        if self.scheduler.config.prediction_type == "v_prediction":
            alpha = self.alphas.to(rows)[times].sqrt()[:, None, None, None]
            output = alpha * output + (1 - alpha**2).sqrt() * rows
        parts = output[:, None].chunk(2) if guided else (output[:, None], None)
        return parts[0], parts[1]


def _load(context: TeacherContext, files: None) -> StableDiffusion:
    generator = context.generator
    teacher = StableDiffusion(
        context.base, generator.vae, generator.scheduler, context.embed, context.size or SIZE, context.shade,
        context.autocast,
    )  # fmt: skip
    teacher.view_by_view = context.view_by_view
    return teacher


def _probe(unet: dict[str, Any], vae: dict[str, Any], dtype: torch.dtype) -> MetaTeacher:
    networks = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae)
    base, encoder = (nn.Module.to(network, dtype) for network in networks)
    embed = meta_embed(base.config["cross_attention_dim"], dtype)
    teacher = StableDiffusion(lambda: nullcontext(base), encoder, DDIMScheduler(), embed, SIZE)
    return MetaTeacher(teacher, shared=True)


LOADER = TeacherLoader(_load, settings=TeacherSettings(guidance=(5.0, 5.0), shift=0.0), probe=_probe)
