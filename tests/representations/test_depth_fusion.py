"""Depth fusion: a sphere seen from all sides, and what gaps between Gaussians do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.representations.depth_fusion import fuse_depths

RADIUS, SIZE, NODES = 0.6, 96, 48
CELL = 2 / (NODES - 1)


def views(azimuths: int) -> tuple[Tensor, Tensor, Tensor, Cameras]:
    """Return exact depths, cosines and opacities of a sphere."""
    angles = [360 * k / azimuths for k in range(azimuths)]
    cameras = orbit(angles * 3, [-50.0] * azimuths + [0.0] * azimuths + [50.0] * azimuths, 3.0, 60.0)
    origins, directions = cameras.rays(SIZE, SIZE)
    along = -(origins * directions).sum(-1)
    inside = RADIUS**2 - (origins.square().sum(-1) - along**2)
    distance = along - inside.clamp_min(0).sqrt()
    points = origins + distance[..., None] * directions
    depth = -torch.einsum("vhwi,vi->vhw", points - origins, cameras.c2w[:, :3, 2])
    facing = -(points / RADIUS * directions).sum(-1)
    solid = (inside > 0).float()
    return depth * solid, facing.clamp(0, 1) * solid, solid, cameras


def radii() -> Tensor:
    axis = torch.linspace(-1, 1, NODES)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).norm(dim=-1)


def test_the_zero_level_is_the_surface() -> None:
    sdf = fuse_depths(*views(8), NODES, 4 * CELL)
    assert (sdf[radii() > RADIUS + CELL] > 0).all()
    assert (sdf[radii() < RADIUS - CELL] < 0).all()
    near = (radii() - RADIUS).abs() < CELL
    # Distances along a view are longer than those to the surface.
    assert float((sdf - (radii() - RADIUS))[near].abs().mean()) < 0.5 * CELL


@pytest.mark.parametrize(("holes", "filled"), [(1, True), (2, False)])
def test_a_gap_in_one_view_carves_nothing(holes: int, filled: bool) -> None:
    depth, facing, opacity, cameras = views(8)
    opacity[:holes] = 0  # these views see the background through the sphere
    sdf = fuse_depths(depth, facing, opacity, cameras, NODES, 4 * CELL)
    assert bool(sdf[NODES // 2, NODES // 2, NODES // 2] < 0) is filled
