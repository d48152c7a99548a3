"""Stable Diffusion teacher: the student's own base with the adapters disabled, so no second U-Net is needed.

Only full fine-tuning, which trains the base itself, needs a separate U-Net; see `plain_base`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

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
from triplaneturbo.teachers.multi_view import NEGATIVE
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.teachers.twin import twin
from triplaneturbo.teachers.view_words import embed_views
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


class TextCondition(NamedTuple):
    """Text embeddings of the n scored views.

    Attributes:
        text: of the captions [B, n, 77, D].
        negative: of the prompt that guidance leads away from [B, n, 77, D].
        empty: of the prompt of DDIM inversion [B, n, 77, D].
    """

    text: Tensor
    negative: Tensor
    empty: Tensor


class StableDiffusion:
    """Stable Diffusion teacher; reads the colours of one random view per scene.

    Attributes:
        view_by_view: see `sample_latents`.
        refining: see `TeacherContext`.

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
        self.view_by_view = self.refining = False

    @property
    def networks(self) -> list[nn.Module]:
        """Networks that must be on the device during a call, except for the student's U-Net."""
        return [self.vae.encoder, self.vae.quant_conv]

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Sample the VAE latents of one random view per scene, or of all: [B, n, 4, h, h]."""
        batch, count = renderings.rgb.shape[:2]
        if self.refining:
            rows, view = torch.arange(batch).repeat_interleave(count), torch.arange(count).repeat(batch)
        else:
            rows, view = torch.arange(batch), randint(rng, 0, count, batch)
        rgb = renderings.rgb[rows, view]  # [B * n, H, W, 3]
        if self.shade is not None and renderings.normal is not None:
            to_camera = scenes.cameras.c2w[:, :3, 2].unflatten(0, (-1, scenes.views))[rows, view].to(rgb)
            normal = F.normalize(renderings.normal.detach()[rows, view], dim=-1)
            shaded = self.shade(rgb, normal, to_camera[:, None, None])
            rgb = torch.lerp(rgb, shaded, renderings.opacity.detach()[rows, view][..., None])
        images = rgb.movedim(-1, 1) * 2 - 1
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        latents = sample_latents(self.vae, images, rng, self.autocast, self.view_by_view)
        return latents.unflatten(0, (batch, -1))

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """Return a copy of this teacher with its own U-Net that shares the weights, and that U-Net."""
        other = copy(self)
        with self.base() as unet:
            unet_copy = twin(unet)
        other.base = lambda: nullcontext(unet_copy)
        return other, unet_copy

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> TextCondition:
        """Return embeddings of the captions, and of the negative and the empty prompt."""
        empty = self.embed([""])[None]
        if not self.refining:
            text = self.embed(scenes.prompts)[:, None]  # [B, 1, 77, D]
            return TextCondition(text, empty.expand_as(text), empty.expand_as(text))
        positions = scenes.cameras.positions.unflatten(0, (-1, scenes.views))  # [B, V, 3]
        text = embed_views(self.embed, scenes.prompts, positions)
        negative = self.embed([NEGATIVE])[None]
        return TextCondition(text, negative.expand_as(text), empty.expand_as(text))

    def unconditional(self, condition: TextCondition) -> TextCondition:
        """See `Teacher.unconditional`: the empty prompt."""
        return condition._replace(text=condition.empty)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: TextCondition, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the noise in latents [B, n, 4, h, h] at timesteps [B]."""
        count, text = noisy.shape[1], condition.text.flatten(0, 1)
        rows, times = noisy.flatten(0, 1), times.repeat_interleave(count)
        with self.base() as unet, autocast_context(self.autocast, rows.device):
            if guided:
                rows, times = rows.repeat(2, 1, 1, 1), times.repeat(2)
                text = torch.cat((text, condition.negative.flatten(0, 1)))
            output = unet(rows.to(unet.dtype), times, encoder_hidden_states=text.to(unet.dtype)).sample
        output = output.float()
        if self.scheduler.config.prediction_type == "v_prediction":
            alpha = self.alphas.to(rows)[times].sqrt()[:, None, None, None]
            output = alpha * output + (1 - alpha**2).sqrt() * rows
        parts = output.unflatten(0, (-1, count)).chunk(2 if guided else 1)
        return parts[0], parts[1] if guided else None


def _load(context: TeacherContext, files: None) -> StableDiffusion:
    generator = context.generator
    teacher = StableDiffusion(
        context.base, generator.vae, generator.scheduler, context.embed, context.size or SIZE, context.shade,
        context.autocast,
    )  # fmt: skip
    teacher.view_by_view, teacher.refining = context.view_by_view, context.refining
    return teacher


def _probe(unet: dict[str, Any], vae: dict[str, Any], dtype: torch.dtype) -> MetaTeacher:
    networks = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae)
    base, encoder = (nn.Module.to(network, dtype) for network in networks)
    embed = meta_embed(base.config["cross_attention_dim"], dtype)
    teacher = StableDiffusion(lambda: nullcontext(base), encoder, DDIMScheduler(), embed, SIZE)
    return MetaTeacher(teacher, shared=True)


LOADER = TeacherLoader(_load, settings=TeacherSettings(guidance=(5.0, 5.0), shift=0.0), probe=_probe)
