"""Input of the geometry teachers: camera-space normals and disparity."""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.render.volume import camera_normals, disparity


def normals_and_disparity(renderings: Renderings, scenes: SceneBatch) -> Tensor:
    """Return camera-space normals and disparity, each in [0, 1]: [B, V, H, W, 4]; see `render.volume`."""
    assert renderings.normal is not None
    assert renderings.depth is not None
    shape = (-1, scenes.views)
    c2w = scenes.cameras.c2w.unflatten(0, shape)[:, :, None, None].to(
        renderings.opacity
    )  # [B, V, 1, 1, 4, 4]
    distance = scenes.cameras.positions.norm(dim=-1).view(shape)[..., None, None].to(renderings.opacity)
    normals = camera_normals(renderings.normal, renderings.opacity, c2w)
    disparities = disparity(renderings.depth, renderings.opacity, distance)
    return torch.cat((normals, disparities[..., None]), -1)
