"""What a run of Progressive Rendering Distillation is told: one place for every choice and every ablation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from triplaneturbo.distill.optimizer import OptimizerName
from triplaneturbo.distill.scores import Kind
from triplaneturbo.errors import UserError
from triplaneturbo.models.config import GeneratorConfig

Tuning = Literal["peta", "lora", "full"]
Schedule = tuple[float, float]  # a value at the beginning and at the end of a run, linear between


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher is listened to.

    Attributes:
        kind: how its opinion becomes a gradient; see `ScoreSettings`.
        weight: factor on its gradients.
        guidance: scale of classifier-free guidance, from the beginning to the end of a run.
        shift: ASD's eta.
        renderings: which of the two it is shown.
        share: of the steps at which it is asked; its gradients then count for the others, too.
        clean_weight, sum_scenes: see `ScoreSettings`.
    """

    kind: Kind = "asd"
    weight: float = 1.0
    guidance: Schedule = (1.0, 1.0)
    shift: float = 0.1
    renderings: tuple[str, ...] = ("volume", "surface")
    share: float = 1.0
    clean_weight: bool = False
    sum_scenes: bool = False


@dataclass(frozen=True)
class Settings:
    """A run. Values that are pairs go linearly from the first to the second over its schedules.

    Attributes:
        iterations: optimiser steps.
        batch: prompts an iteration and process.
        steps: K.
        scored: how many of an iteration's K steps are rendered and scored, drawn anew each time; the others
            are only walked through. The gradient is the same on average, and a caption costs less: more
            captions an hour. None: all of them, as in Algorithm 1.
        rate: learning rate, the highest; see `anneal`.
        optimizer: "adamw", "soap" or "adan"; see `make_optimizer`.
        teachers: by name; a teacher without an entry is off.
        renderings: "volume", "surface" or both.
        size: side of the images; the volume shows every `stride`-th of their pixels along both sides, the
            surface every `surface_stride`-th, another set at each step.
        nodes: of the sdf lattice along each side.
        sharpness: of the volume rendering.
        low: lowest timestep that teachers are asked at; high: one more than the highest.
        color_shrink: factor on the colours' gradient from the volume rendering.
        shape_shrink: factor on the shape's gradient from the surface's normals and depths; 0: these are not
            shown.
        eikonal, sparsity: weights of the regularisers.
        tuning: what learns: PETA's adapters, basic LoRA's, or the whole base.
        rank: of all adapters; None: the model's own ranks.
        critic_rank, critic_rate: rank and learning rate of the critic of each teacher whose kind is "vsd".
        anneal: whether the rate rises over the first 25 iterations, or a tenth of the run where that is less,
            and then falls to a twentieth, as a cosine.
        clip: the largest norm of the gradient; inf: any.
        average: decay of the moving average of the adapter, which is what is kept in the end.
        start: a mark of the trained adapter that the run begins with; "": it begins with a new one.
        begun: how much of the schedules (not of the rate's) lies behind that one: 0 to 1.
    """

    iterations: int = 2000
    batch: int = 4
    steps: int = 4
    scored: int | None = None
    rate: float = 2e-4
    optimizer: OptimizerName = "adamw"
    teachers: dict[str, TeacherSettings] = field(default_factory=dict)
    renderings: tuple[str, ...] = ("volume", "surface")
    size: int = 512
    stride: int = 4
    surface_stride: int = 1
    nodes: int = 128
    sharpness: Schedule = (100.0, 100.0)
    low: Schedule = (500.0, 20.0)
    high: int = 980
    color_shrink: Schedule = (1.0, 0.01)
    shape_shrink: float = 0.001
    eikonal: Schedule = (1.0, 0.0)
    sparsity: Schedule = (1.0, 0.0)
    average: float = 0.995
    tuning: Tuning = "peta"
    rank: int | None = None
    critic_rank: int = 4
    critic_rate: float = 1e-4
    anneal: bool = True
    clip: float = 1.0
    seed: int = 0
    start: str = ""
    begun: float = 0.0

    def rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        if not self.anneal:
            return self.rate
        rising = min(1.0, (iteration + 1) / max(1.0, min(25.0, self.iterations / 10)))
        along = math.cos(math.pi * iteration / self.iterations)
        return self.rate * rising * (0.05 + 0.95 * 0.5 * (1 + along))

    def progress_at(self, iteration: int) -> float:
        """How much of the schedules an iteration has behind it, 0 to 1."""
        return self.begun + (1 - self.begun) * iteration / self.iterations

    def fitted(self, config: GeneratorConfig) -> GeneratorConfig:
        """A model's configuration with the kind of adapters that is asked for here, and their rank."""
        config = replace(config, plane_lora=self.tuning != "lora")
        if self.rank is None:
            return config
        rank = self.rank
        return replace(config, plane_rank=rank, cross_rank=rank, vae_rank=rank, conv_rank=rank)

    def listening(self, names: Iterable[str]) -> Settings:
        """The same run with these teachers alone, in the order in which they stand here.

        Raises:
            UserError: none is named, or one that these settings do not know.
        """
        names = list(names)
        unknown = [name for name in names if name not in self.teachers]
        if unknown or not names:
            wrong = f"There is no teacher called {unknown[0]!r}" if unknown else "No teacher is chosen"
            raise UserError(f"{wrong}: choose from {', '.join(self.teachers)}.")
        return replace(self, teachers={name: how for name, how in self.teachers.items() if name in names})


def interpolate(span: Schedule, progress: float) -> float:
    """A scheduled value when `progress` of the run, 0 to 1, is done."""
    return span[0] + (span[1] - span[0]) * progress


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of plain values, "teachers.rgb.weight" and the like."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out
