"""A teacher that prefers grey, for the test of the registry: a `TeacherLoader` in one file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.loader import TeacherContext, TeacherLoader
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.random_streams import RandomStreams


class GreyTeacher:
    """The exact denoiser of uniformly grey images."""

    name = "grey"
    reads: tuple[str, ...] = ("rgb",)

    def __init__(self, alphas: Tensor) -> None:
        self.alphas = alphas

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        return renderings.rgb.movedim(-1, 2) - 0.5

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> None:
        return None

    def unconditional(self, condition: None) -> None:
        return None

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        sigma = (1 - self.alphas.to(noisy)[times]).sqrt().view(-1, *[1] * (noisy.ndim - 1))
        return noisy / sigma, noisy / sigma if guided else None


def _load(context: TeacherContext, files: str) -> GreyTeacher:
    assert files == "grey.txt"
    return GreyTeacher(context.generator.scheduler.alphas_cumprod.to(torch.float32))


LOADER = TeacherLoader(_load, lambda: "grey.txt", TeacherSettings(kind="sds", renderings=("volume",)))
