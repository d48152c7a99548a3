"""What teachers of geometry are shown."""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render.volume import camera_normals, disparity
from triplaneturbo.teachers.base import Renderings, SceneBatch


def normals_and_disparity(seen: Renderings, scenes: SceneBatch) -> Tensor:
    """Normals in camera axes and disparity, each in [0, 1]: [B, V, H, W, 4]; see `render.volume`."""
    assert seen.normal is not None
    assert seen.depth is not None
    shape = (-1, scenes.views)
    c2w = scenes.cameras.c2w.unflatten(0, shape)[:, :, None, None].to(seen.opacity)  # [B, V, 1, 1, 4, 4]
    away = scenes.cameras.positions.norm(dim=-1).view(shape)[..., None, None].to(seen.opacity)
    normals = camera_normals(seen.normal, seen.opacity, c2w)
    near = disparity(seen.depth, seen.opacity, away)
    return torch.cat((normals, near[..., None]), -1)
