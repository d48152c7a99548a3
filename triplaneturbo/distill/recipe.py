"""The full model's training recipe; see docs/teachers.md, "Recipe of the released trainer"."""

from __future__ import annotations

import math
from dataclasses import replace

from triplaneturbo.distill.settings import Settings
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.models.config import OPEN
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.teachers.settings import Schedule, TeacherSettings


def full_recipe(iterations: int = 15_000, released: bool = False, device: str = "cuda") -> Settings:
    """Return the settings of a full-size run: 512^2 views, K = 4, Adan.

    Args:
        iterations: length of the run and of all schedules.
        released: follow the released code where it differs from the paper. Its schedules span 20,000
            iterations, of which 15,000 are done; load the teachers with `released`, too.
        device: "cpu" renders 64^2 pixels of the volume and 256^2 of the surface instead of 128^2 and 512^2,
            still at least what RichDreamer (32^2) and MVDream (256^2) read.
    """
    end = 0.75 if released else 1.0
    batch = 2
    regularizer = batch if released else 1.0  # the released code sums over scenes

    def truncated(span: Schedule) -> Schedule:
        return span[0], span[0] + (span[1] - span[0]) * end

    def adapted(name: str) -> TeacherSettings:
        own = TEACHERS[name].loader().settings
        guidance = (7.5, 7.5) if released and name == "sd" else truncated(own.guidance)
        return replace(own, guidance=guidance, clean_weight=released, sum_scenes=released)

    return Settings(
        iterations=iterations,
        batch=batch,
        steps=4,
        learning_rate=2e-4,
        optimizer="adan",
        stride=8 if device == "cpu" else 4,
        surface_stride=2 if device == "cpu" else 1,
        anneal=False,
        clip=math.inf,
        teachers={name: adapted(name) for name in find_domain(OPEN).teachers},
        low=truncated((500.0, 20.0)),
        high=980,
        color_shrink=truncated((1.0, 0.01)),
        train_offsets=True,
        eikonal=truncated((regularizer, 0.0)),
        sparsity=truncated((regularizer, 0.0)),
    )
