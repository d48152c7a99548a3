"""The loss of triplanes: volume and surface renderings, scored by the teachers, plus regularizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.distill.settings import Settings, interpolate
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.triplane_rendering import surface, volume
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.offload import on_device
from triplaneturbo.teachers.settings import Schedule
from triplaneturbo.utils.random_streams import RandomStreams


def rendering_loss(
    generator: TriplaneGenerator,
    planes: Tensor,
    teachers: Sequence[Teacher],
    scenes: SceneBatch,
    settings: Settings,
    progress: float,
    shared_rng: np.random.Generator,
    rng: RandomStreams,
    log: dict[str, float],
    critics: Mapping[str, LoraCritic] | None = None,
) -> Tensor:
    """Render planes both ways and return a scalar loss whose gradient is that of the teachers' scores.

    Args:
        generator: provides the field decoder.
        planes: triplanes [B, 6, C, H, W].
        teachers: teachers with an entry in `settings.teachers` are used.
        progress: position in the schedules, 0 to 1.
        shared_rng: draws what all scenes share.
        rng: draws what differs between scenes.
        log: receives the regularizers and, as "<teacher> <rendering>", the mean errors of the scores; values
            are added to existing entries.
        critics: critics by teacher name; their gradients are accumulated, too.
    """

    def now(schedule: Schedule) -> float:
        return interpolate(schedule, progress)

    fields = generator.heads[generator.active].fields
    volume_offset, surface_offset = (
        (int(shared_rng.integers(stride)), int(shared_rng.integers(stride)))
        for stride in (settings.stride, settings.surface_stride)
    )
    # Vary the grid's extent, so that the field is trained between nodes and in the corners, too.
    half = float(shared_rng.uniform(0.86, 1.0))
    view = volume(fields, planes, scenes, size=settings.size, stride=settings.stride, first=volume_offset,
                  nodes=settings.nodes, half=half, sharpness=now(settings.sharpness),
                  color_shrink=now(settings.color_shrink), jitter=rng)  # fmt: skip
    renderings: dict[str, Renderings] = {}
    if "volume" in settings.renderings:
        renderings["volume"] = view.seen
    if "surface" in settings.renderings:
        geometry_settings = (settings.teachers.get(t.name) for t in teachers if "depth" in t.reads)
        needs_geometry = any(s is not None and "surface" in s.renderings for s in geometry_settings)
        renderings["surface"] = surface(
            fields, planes, scenes, view.sdf, half, settings.size, settings.surface_stride, surface_offset,
            settings.shape_shrink if needs_geometry else 0.0,
        )  # fmt: skip
    loss = 0 * planes[0, 0, 0, 0, 0]  # has a gradient even if no teacher scores this step
    if "volume" in settings.renderings:
        loss = now(settings.eikonal) * view.eikonal + now(settings.sparsity) * view.sparsity
        log["eikonal"] = log.get("eikonal", 0.0) + float(view.eikonal.detach())
    log["opacity"] = log.get("opacity", 0.0) + float(view.seen.opacity.detach().mean())
    for teacher in teachers:
        teacher_settings = settings.teachers.get(teacher.name)
        if teacher_settings is None or shared_rng.random() >= teacher_settings.share:
            continue
        score = ScoreSettings.of(
            teacher_settings,
            progress,
            low=int(now(settings.low)),
            high=settings.high,
            weight=teacher_settings.weight / teacher_settings.share,
        )
        critic = critics.get(teacher.name) if critics else None
        with on_device(teacher):
            for name, rendering in renderings.items():
                missing = any(getattr(rendering, field) is None for field in teacher.reads)
                if name not in teacher_settings.renderings or missing:
                    continue
                gradients = score_gradients(teacher, rendering, scenes, score, rng, critic)
                for field, gradient in gradients.by_field.items():
                    loss = loss + (getattr(rendering, field) * gradient).sum()
                key = f"{teacher.name} {name}"
                log[key] = log.get(key, 0.0) + gradients.error
    return loss
