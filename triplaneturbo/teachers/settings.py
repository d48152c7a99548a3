"""Score-distillation settings of one teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["asd", "sds", "csd", "vsd", "ism"]
Weighting = Literal["dmd", "level", "pixel"]
ShiftLevel = Literal["t", "own"]
KINDS: tuple[str, ...] = get_args(Kind)
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
SHIFT_LEVELS: tuple[str, ...] = get_args(ShiftLevel)
Schedule = tuple[float, float]  # start and end value; linear in between


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher's score is used.

    Attributes:
        kind: variant of score distillation; see `distill.scores.ScoreSettings`.
        weight: factor on its gradients.
        guidance: schedule of the classifier-free guidance scale.
        shift: ASD's eta.
        renderings: which renderings it scores: "volume", "surface" or both.
        share: fraction of the steps at which it is evaluated; its gradients are divided by this share.
        shift_level, weighting, contrast, clean_weight, sum_scenes, stride, interval: see `ScoreSettings`.
    """

    kind: Kind = "asd"
    weight: float = 1.0
    guidance: Schedule = (1.0, 1.0)
    shift: float = 0.1
    shift_level: ShiftLevel = "t"
    renderings: tuple[str, ...] = ("volume", "surface")
    share: float = 1.0
    weighting: Weighting = "dmd"
    contrast: float = 0.0
    clean_weight: bool = False
    sum_scenes: bool = False
    stride: int = 200
    interval: int = 50
