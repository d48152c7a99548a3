"""Loading of the full model's teachers, in the precision and on the device of the student's base."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import load_text
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.multi_view import Embed
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.offload import OffloadableTeacher, offload_sequentially
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import Base, StableDiffusion

SIZE = 512  # image size of Stable Diffusion 2.1-base, in pixels


def load_full_teachers(
    generator: TriplaneGenerator,
    base: Base,
    embed: Embed,
    mvdream: Path | None,
    richdreamer: Path | None,
    text: Path | None,
    sd: bool = True,
    released: bool = False,
    text_on_cpu: bool = False,
    view_by_view: bool = False,
    offload: bool = False,
    autocast: torch.dtype | None = None,
) -> list[Teacher]:
    """Load MVDream, RichDreamer and Stable Diffusion, or a subset, in the order of `full_recipe`.

    Args:
        generator: the student's generator, including its VAE encoder.
        base: context that yields the student's U-Net with the adapters disabled (`TriplaneGenerator.base`,
            `MergedLora.base`), or a separate U-Net (`plain_base`) if the student's base is trained.
        embed: text encoder of Stable Diffusion 2.1-base, which MVDream shares.
        mvdream, richdreamer: checkpoint paths; None to skip the teacher.
        text: folder with `text_encoder` and `tokenizer` of Stable Diffusion 1.5; required by RichDreamer.
        sd: include Stable Diffusion.
        released: reproduce the released trainer's inputs instead of those of the teachers' authors.
        text_on_cpu: run RichDreamer's text encoder on the CPU.
        view_by_view: see `sample_latents`.
        offload: keep teachers in CPU memory and move one at a time to the device; see `offload.py`.
        autocast: autocast precision of the networks; None for the precision of the weights.

    Raises:
        UserError: if a checkpoint is missing, broken or of another model.
        ValueError: if RichDreamer is requested without `text`.
    """
    device, dtype = generator.device, generator.dtype
    load_device = torch.device("cpu") if offload else device
    teachers: list[OffloadableTeacher] = []

    def add(teacher: MVDream | RichDreamer) -> None:
        for network in teacher.networks:
            nn.Module.to(network, device=load_device, dtype=dtype)
        teachers.append(teacher)

    if mvdream is not None:
        mvdream_teacher = MVDream.load(mvdream, embed, released=released, autocast=autocast)
        mvdream_teacher.view_by_view = view_by_view
        add(mvdream_teacher)
    if richdreamer is not None:
        if text is None:
            raise ValueError("RichDreamer needs its text encoder")
        text_encoder = load_text(text)
        if not text_on_cpu:
            text_encoder.model.to(device, dtype if device.type == "cuda" else torch.float32)
        embed_sd15 = TextEmbeddingCache(text_encoder.embed, device)
        add(RichDreamer.load(richdreamer, embed_sd15, released=released, autocast=autocast))
    if sd:
        sd_teacher = StableDiffusion(base, generator.vae, generator.scheduler, embed, SIZE, None, autocast)
        sd_teacher.view_by_view = view_by_view
        teachers.append(sd_teacher)
    return offload_sequentially(teachers, device) if offload else list(teachers)
