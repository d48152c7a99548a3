"""The full model's recipe: how its three teachers are listened to (facts/teachers.md 12)."""

from __future__ import annotations

import math

from triplaneturbo.distill.settings import Schedule, Settings, TeacherSettings


def full_recipe(iterations: int = 15_000, released: bool = False, device: str = "cuda") -> Settings:
    """Settings of a run at full size: 512^2 views, PRD's K = 4, Adan.

    Args:
        iterations: all schedules end with them.
        released: what the released code computes and not what the paper says. Its schedules are made for
            20,000 iterations, of which 15,000 are done; teachers are to be made with `released`, too.
        device: where it runs. A CPU sees 64^2 and 256^2 pixels of the volume and of the surface, and not
            128^2 and 512^2: what RichDreamer and MVDream look at, which pool them to 32^2 and 256^2.
    """
    end = 0.75 if released else 1.0

    def until(span: Schedule) -> Schedule:
        return span[0], span[0] + (span[1] - span[0]) * end

    def listen(guidance: Schedule, shift: float) -> TeacherSettings:
        return TeacherSettings(guidance=guidance, shift=shift, clean_weight=released, sum_scenes=released)

    sd = 7.5 if released else 5.0
    return Settings(
        iterations=iterations,
        batch=2,
        steps=4,
        rate=2e-4,
        optimizer="adan",
        stride=8 if device == "cpu" else 4,
        surface_stride=2 if device == "cpu" else 1,
        anneal=False,
        clip=math.inf,
        teachers={
            "mvdream": listen(until((20.0, 10.0)), 0.0),
            "richdreamer": listen((20.0, 20.0), 0.1),
            "sd": listen((sd, sd), 0.0),
        },
        low=until((500.0, 20.0)),
        high=980,
        color_shrink=until((1.0, 0.01)),
        eikonal=until((1.0, 0.0)),
        sparsity=until((1.0, 0.0)),
    )
