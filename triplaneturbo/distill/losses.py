"""From planes to a loss: rendered both ways, shown to the teachers, who say what they would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.rendering import surface, volume
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.distill.settings import Schedule, Settings, interpolate
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.teachers.offload import on_device
from triplaneturbo.utils.random_streams import RandomStreams


def rendering_loss(
    generator: TriplaneGenerator,
    planes: Tensor,
    teachers: Sequence[Teacher],
    scenes: SceneBatch,
    settings: Settings,
    progress: float,
    rng: np.random.Generator,
    chance: RandomStreams,
    log: dict[str, float],
    critics: Mapping[str, LoraCritic] | None = None,
) -> Tensor:
    """Render planes [B, 6, C, H, W] both ways and ask the teachers; a scalar whose gradient is theirs.

    Args:
        progress: how much of the schedules is done, 0 to 1.
        rng: draws what all scenes share.
        chance: draws what differs from scene to scene.
        log: gets the regularisers and, by teacher and rendering, what the teachers' weights were computed
            from, added to what it has.
        critics: of the teachers that have one, by name; their gradients are accumulated, too.
    """

    def now(span: Schedule) -> float:
        return interpolate(span, progress)

    fields = generator.heads[generator.active].fields
    first, other = (
        (int(rng.integers(stride)), int(rng.integers(stride)))
        for stride in (settings.stride, settings.surface_stride)
    )
    # The lattice's size varies, so that the field is learned between nodes and in the corners, too.
    half = float(rng.uniform(0.86, 1.0))
    view = volume(fields, planes, scenes, size=settings.size, stride=settings.stride, first=first,
                  nodes=settings.nodes, half=half, sharpness=now(settings.sharpness),
                  color_shrink=now(settings.color_shrink), jitter=chance)  # fmt: skip
    shown: dict[str, Renderings] = {}
    if "volume" in settings.renderings:
        shown["volume"] = view.seen
    if "surface" in settings.renderings:
        told = (settings.teachers.get(teacher.name) for teacher in teachers if "depth" in teacher.reads)
        wanted = any(how is not None and "surface" in how.renderings for how in told)
        shown["surface"] = surface(
            fields, planes, scenes, view.sdf, half, settings.size, settings.surface_stride, other,
            settings.shape_shrink if wanted else 0.0,
        )  # fmt: skip
    loss = now(settings.eikonal) * view.eikonal + now(settings.sparsity) * view.sparsity
    for key, value in (("eikonal", view.eikonal), ("opacity", view.seen.opacity.mean())):
        log[key] = log.get(key, 0.0) + float(value.detach())
    for teacher in teachers:
        how = settings.teachers.get(teacher.name)
        if how is None or rng.random() >= how.share:
            continue
        with on_device(teacher):
            for name, seen in shown.items():
                if name not in how.renderings or any(getattr(seen, part) is None for part in teacher.reads):
                    continue
                score = ScoreSettings(kind=how.kind, guidance=now(how.guidance), shift=how.shift,
                                      low=int(now(settings.low)), high=settings.high,
                                      weight=how.weight / how.share, clean_weight=how.clean_weight,
                                      sum_scenes=how.sum_scenes)  # fmt: skip
                critic = critics.get(teacher.name) if critics else None
                gradients = score_gradients(teacher, seen, scenes, score, chance, critic)
                for where, gradient in gradients.by_field.items():
                    loss = loss + (getattr(seen, where) * gradient).sum()
                key = f"{teacher.name} {name}"
                log[key] = log.get(key, 0.0) + gradients.error
    return loss
