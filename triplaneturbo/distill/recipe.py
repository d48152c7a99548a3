"""The full model's training recipe; see docs/teachers.md, "Recipe of the released trainer"."""

from __future__ import annotations

import math

from triplaneturbo.distill.settings import Schedule, Settings, TeacherSettings


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

    def teacher_settings(guidance: Schedule, shift: float) -> TeacherSettings:
        return TeacherSettings(guidance=guidance, shift=shift, clean_weight=released, sum_scenes=released)

    sd = 7.5 if released else 5.0
    return Settings(
        iterations=iterations,
        batch=batch,
        steps=4,
        rate=2e-4,
        optimizer="adan",
        stride=8 if device == "cpu" else 4,
        surface_stride=2 if device == "cpu" else 1,
        anneal=False,
        clip=math.inf,
        teachers={
            "mvdream": teacher_settings(truncated((20.0, 10.0)), 0.0),
            "richdreamer": teacher_settings((20.0, 20.0), 0.1),
            "sd": teacher_settings((sd, sd), 0.0),
        },
        low=truncated((500.0, 20.0)),
        high=980,
        color_shrink=truncated((1.0, 0.01)),
        train_offsets=True,
        eikonal=truncated((regularizer, 0.0)),
        sparsity=truncated((regularizer, 0.0)),
    )
