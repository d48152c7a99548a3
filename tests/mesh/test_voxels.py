"""Voxelization against geometry in closed form and against a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.voxels import centres, filled, overlap


def ball(centre: tuple[float, float, float], radius: float, resolution: int = 80) -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, resolution)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return marching_cubes((nodes - torch.tensor(centre)).norm(dim=-1) - radius)


def by_solid_angle(vertices: Tensor, faces: Tensor, size: int) -> np.ndarray:
    """Slow reference: the winding number of each voxel's centre, by the solid angles of the faces."""
    axis = centres(size)
    corners = vertices.double().numpy()[faces.numpy()]  # [F, 3, 3]
    inside = np.zeros((size, size, size), dtype=bool)
    for place in np.ndindex(inside.shape):
        a, b, c = np.moveaxis(corners - axis[list(place)], 1, 0)  # [F, 3] each
        la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
        above = (a * np.cross(b, c)).sum(1)
        below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        inside[place] = np.arctan2(above, below).sum() / (2 * math.pi) > 0.5
    return inside


def test_volume_of_a_ball() -> None:
    inside = filled(*ball((0.1, -0.2, 0.05), 0.6), 96)
    assert inside.mean() * 8 == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)


def test_overlap_of_two_balls() -> None:
    radius, apart = 0.5, 0.4
    lens = math.pi * (4 * radius + apart) * (2 * radius - apart) ** 2 / 12
    whole = 2 * 4 / 3 * math.pi * radius**3
    one, other = (filled(*ball((side, 0.0, 0.0), radius), 96) for side in (-apart / 2, apart / 2))
    assert overlap(one, other) == pytest.approx(lens / (whole - lens), rel=0.02)
    assert overlap(one, one) == 1
    assert overlap(one, np.zeros_like(one)) == 0
    assert overlap(one & False, one & False) == 0


@pytest.mark.parametrize(
    "resolution", [13, 16, 25]
)  # 13 and 25: nodes that coincide with voxel centres or are in their planes
def test_filling_matches_solid_angles(resolution: int) -> None:
    axis = torch.linspace(-1, 1, resolution)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    ring = ((x**2 + y**2).sqrt() - 0.55).square() + z**2 - 0.3**2  # with a hole
    vertices, faces = marching_cubes(ring)
    assert np.array_equal(filled(vertices, faces, 12), by_solid_angle(vertices, faces, 12))


def test_cavities_stay_empty_and_outside_parts_are_cut() -> None:
    outer, inner = ball((0, 0, 0), 0.8), ball((0, 0, 0), 0.4)
    vertices = torch.cat((outer[0], inner[0]))
    faces = torch.cat((outer[1], inner[1].flip(1) + len(outer[0])))
    shell = filled(vertices, faces, 32)
    assert not shell[16, 16, 16]
    assert shell[16, 16, 26]
    wide = filled(outer[0] * 2, outer[1], 32)
    assert wide[16, 16, 0]
    assert wide[16, 16, 31]
    assert not wide[0, 0, 0]


def test_empty_mesh_fills_nothing() -> None:
    assert not filled(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), 16).any()
