"""The full model's teachers, each in the precision and on the device of the student's base."""

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
from triplaneturbo.teachers.offload import Movable, offload_sequentially
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import Base, StableDiffusion

SIZE = 512  # side of the pictures that Stable Diffusion 2.1-base was trained on


def full_teachers(
    generator: TriplaneGenerator,
    base: Base,
    embed: Embed,
    mvdream: Path | None,
    richdreamer: Path | None,
    text: Path | None,
    sd: bool = True,
    released: bool = False,
    texts_aside: bool = False,
    view_by_view: bool = False,
    moving: bool = False,
    autocast: torch.dtype | None = None,
) -> list[Teacher]:
    """MVDream, RichDreamer and Stable Diffusion, or those of them that are asked for.

    They stand in the order of `distill.recipe.full_recipe`.

    Args:
        generator: the student's, with its VAE's encoder.
        base: gives its U-Net with the adapters off (`TriplaneGenerator.base`, `Folded.base`), or another
            (`plain_base`) where that learns.
        embed: the text encoder of Stable Diffusion 2.1-base, which is MVDream's, too.
        mvdream, richdreamer: their checkpoints; None: without it.
        text: a folder with `text_encoder` and `tokenizer` of Stable Diffusion 1.5, which RichDreamer needs.
        sd: whether Stable Diffusion is among them.
        released: what the released trainer showed and told them, and not what their authors do.
        texts_aside: RichDreamer's text encoder works in the main memory.
        view_by_view: see `sample_latents`.
        moving: they come from the main memory in turn; see `offload.py`.
        autocast: precision of their networks; None: that of their weights.

    Raises:
        UserError: a file is missing, broken or of another model.
    """
    device, dtype = generator.device, generator.dtype
    place = torch.device("cpu") if moving else device
    teachers: list[Movable] = []

    def take(teacher: MVDream | RichDreamer) -> None:
        for network in teacher.networks:
            nn.Module.to(network, device=place, dtype=dtype)
        teachers.append(teacher)

    if mvdream is not None:
        views = MVDream.load(mvdream, embed, released=released, autocast=autocast)
        views.view_by_view = view_by_view
        take(views)
    if richdreamer is not None:
        if text is None:
            raise ValueError("RichDreamer needs its text encoder")
        words = load_text(text)
        if not texts_aside:
            words.model.to(device, dtype if device.type == "cuda" else torch.float32)
        remembered = TextEmbeddingCache(words.embed, device)
        take(RichDreamer.load(richdreamer, remembered, released=released, autocast=autocast))
    if sd:
        own = StableDiffusion(base, generator.vae, generator.scheduler, embed, SIZE, None, autocast)
        own.view_by_view = view_by_view
        teachers.append(own)
    return offload_sequentially(teachers, device) if moving else list(teachers)
