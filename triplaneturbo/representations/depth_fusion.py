"""Fusion of depth images into a truncated signed distance grid (Curless and Levoy 1996).

Gaussian splatting methods extract meshes this way (2D Gaussian Splatting, arXiv 2403.17888): the Gaussians
lie on the surface only, so their density has no inside, but the depths seen from all sides bound it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras

_VIEWS_TO_CARVE = 2  # a single one may look through a gap between Gaussians
_SOLID = 0.5  # opacity from which a pixel shows the surface


@torch.no_grad()
def fuse_depths(
    depth: Tensor, facing: Tensor, opacity: Tensor, cameras: Cameras, resolution: int, truncation: float
) -> Tensor:
    """Fuse V depth images into a truncated SDF, negative inside: [R, R, R], indexed [x, y, z].

    A node that two views see well in front of the surface, or against the background, is outside; one that
    no view sees is inside. Elsewhere, near the surface, the mean over the views decides, to which a view
    contributes by the square of the surface's cosine: at a grazing angle depths are inaccurate.

    Args:
        depth: depth along the viewing axis [V, H, W].
        facing: cosine between the surface's normal and the direction to the camera, in [0, 1] [V, H, W].
        opacity: [V, H, W], in [0, 1].
        cameras: the V cameras, outside of the grid.
        resolution: nodes R along each side of [-1, 1]^3.
        truncation: distance at which the SDF is cut off, in world units.
    """
    height, width = depth.shape[1:]
    axis = torch.linspace(-1, 1, resolution, device=depth.device)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flatten(0, 2)  # [M, 3]
    total, weight, free = (torch.zeros_like(nodes[:, 0]) for _ in range(3))
    size = nodes.new_tensor([width, height])
    for view, camera in enumerate(cameras[i] for i in range(len(cameras))):
        x, y, away = camera.to_pixels(nodes, height, width)[0].unbind(-1)  # [M]
        at = torch.stack((x / away, y / away), -1)
        inside = ((at >= 0) & (at < size)).all(-1)
        # The nearest pixel: between a surface and the background there is no depth.
        column, row = at.long().clamp_min(0).minimum(size.long() - 1).unbind(-1)
        solid = opacity[view, row, column] > _SOLID
        distance = torch.where(solid, depth[view, row, column] - away, math.inf)
        near = inside & (distance > -truncation) & (distance <= truncation)
        trust = torch.where(near, facing[view, row, column].square(), 0)
        free += inside & (distance > truncation)
        total += torch.where(near, distance, 0) * trust
        weight += trust
    mean = torch.where(weight > 0, total / weight.clamp_min(1e-6), -truncation)
    carved = (free >= _VIEWS_TO_CARVE) & (mean < 0)
    return torch.where(carved, truncation, mean).view(resolution, resolution, resolution)
