"""What a teacher's file provides to the rest of the package: see `TeacherLoader`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.offload import OffloadableTeacher
from triplaneturbo.teachers.settings import TeacherSettings

Base = Callable[[], AbstractContextManager[UNet2DConditionModel]]
Embed = Callable[[list[str]], Tensor]  # captions -> text embeddings [B, 77, D]
Shade = Callable[[Tensor, Tensor, Tensor], Tensor]  # colours, normals, directions to the camera -> colours
# (captions, scenes, student's renderings, field names) -> reference renderings of the captions' instances at
# the student's pixels: one `Renderings` [B, V, H, W, ...] per instance.
Data = Callable[[Sequence[str], SceneBatch, Renderings, tuple[str, ...]], list[Renderings]]

WORDS = 77
META = torch.device("meta")


@dataclass(frozen=True)
class TeacherContext:
    """What a teacher may be made from.

    Attributes:
        generator: the student's generator, including its VAE encoder; teachers take its dtype.
        base: context that yields the student's U-Net with the adapters disabled (`TriplaneGenerator.base`,
            `MergedLora.base`), or a separate U-Net (`plain_base`) if the student's base is trained.
        embed: the student's text encoder.
        device: device of the computation.
        offload: keep the teacher's own networks in CPU memory; see `offload.py`.
        size: image size of the student's VAE encoder, in pixels; None for that of Stable Diffusion.
        data: reference renderings of captions, for closed-form teachers.
        shade: shading of the base's training images, if any.
        released: reproduce the released trainer's inputs instead of those of the teachers' authors.
        text_on_cpu: run the teacher's own text encoder on the CPU.
        view_by_view: see `sample_latents`.
        autocast: autocast precision of the networks; None for the precision of the weights.
        refining: condition text-conditioned teachers as LucidDreamer does: Stable Diffusion scores all views,
            with words for each view in the prompt, and its guidance leads away from a negative prompt, while
            the DDIM inversion of all of them has the empty prompt.
    """

    generator: TriplaneGenerator
    base: Base
    embed: Embed
    device: torch.device
    offload: bool = False
    size: int | None = None
    data: Data | None = None
    shade: Shade | None = None
    released: bool = False
    text_on_cpu: bool = False
    view_by_view: bool = False
    autocast: torch.dtype | None = None
    refining: bool = False

    def place(self, networks: Sequence[nn.Module]) -> None:
        """Move a teacher's own networks to where they are kept, in the student's dtype."""
        device = torch.device("cpu") if self.offload else self.device
        for network in networks:
            nn.Module.to(network, device=device, dtype=self.generator.dtype)


@dataclass(frozen=True)
class MetaTeacher:
    """A teacher on the meta device, as a probe returns it.

    Attributes:
        teacher: the teacher, with random networks in the dtype of the run.
        shared: whether its networks are the student's, so that their weights take no more memory.
        text: its own text encoder; None if it uses the student's.
    """

    teacher: OffloadableTeacher
    shared: bool = False
    text: nn.Module | None = None


# U-Net and VAE configurations of the student's base, dtype of frozen weights -> the teacher.
TeacherProbe = Callable[[dict[str, Any], dict[str, Any], torch.dtype], MetaTeacher]


def no_files() -> None:
    """Return the files of a teacher that has none."""


@dataclass(frozen=True)
class TeacherLoader:
    """How a teacher is made.

    Attributes:
        load: makes it from a context and what `files` returned.
        files: returns the teacher's files, downloading missing ones.
        settings: settings of its score, where the recipe of a run has none for it.
        probe: makes it on the meta device, to count its memory; None if it needs next to none.
    """

    load: Callable[[TeacherContext, Any], Teacher]
    files: Callable[[], Any] = no_files
    settings: TeacherSettings = field(default_factory=TeacherSettings)
    probe: TeacherProbe | None = None


def meta_embed(width: int, dtype: torch.dtype) -> Embed:
    """Return a stand-in for a text encoder, for probes: captions -> [B, 77, width]."""
    return lambda texts: torch.empty(len(texts), WORDS, width, dtype=dtype, device=META)
