"""Marching cubes against meshes of the public implementation and against a slow reference."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.topology import uses_of_edges, volume
from triplaneturbo.mesh.extraction import marching_cubes_tables
from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes


def slow_marching_cubes(sdf: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Slow reference: node by node and cell by cell in plain Python."""
    size = len(sdf)
    if not (sdf < 0).any() or not (sdf > 0).any():
        return torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)

    def value(node: tuple[int, ...]) -> Tensor:
        return sdf[node] if all(0 <= c < size for c in node) else sdf.new_tensor(1.0)

    def place(node: tuple[int, ...]) -> Tensor:
        inside = offset is not None and all(0 <= c < size for c in node)
        return torch.tensor(node).to(sdf) + (offset[node] if inside else 0)  # type: ignore[index]

    everything = list(np.ndindex(size + 1, size + 1, size + 1))
    cells = [tuple(c - 1 for c in cell) for cell in everything]
    vertices: list[Tensor] = []
    number: dict[tuple[tuple[int, ...], int], int] = {}
    for cell in cells:
        for axis in range(3):
            end = tuple(c + (index == axis) for index, c in enumerate(cell))
            a, b = value(cell), value(end)
            if (a < 0) != (b < 0):
                share = ((0 - a) / (b - a)).clamp(0, 1)
                number[cell, axis] = len(vertices)
                at = place(cell) + share * (place(end) - place(cell))
                vertices.append(2 * at / (size - 1) - 1)
    faces = []
    for cell in cells:
        corners = [
            tuple(map(sum, zip(cell, marching_cubes_tables.corner_offset(i), strict=True))) for i in range(8)
        ]
        pattern = sum(int(value(corner) >= 0) << index for index, corner in enumerate(corners))
        for triangle in marching_cubes_tables.triangles()[pattern]:
            edges = [marching_cubes_tables.EDGES[edge] for edge in triangle]
            faces.append([number[corners[low], axis] for axis, low in edges])
    return torch.stack(vertices), torch.tensor(faces)


def shares_of_edges(faces: Tensor) -> Tensor:
    """Count opposite minus equal half-edges of each directed edge: all zero if closed."""
    ends = torch.cat((faces[:, :2], faces[:, 1:], faces[:, [2, 0]]))
    edges, where = ends.sort(1)[0].unique(dim=0, return_inverse=True)
    sign = torch.where(ends[:, 0] < ends[:, 1], 1, -1)
    return torch.zeros(len(edges), dtype=torch.int64).index_add(0, where, sign)


def sphere(size: int, radius: float = 0.5) -> Tensor:
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return grid.norm(dim=-1) - radius


def test_meshes_match_the_public_implementation(parity: Path) -> None:
    cases = [np.load(path) for path in sorted((parity / "surface").glob("*.npz"))]
    cases = [case for case in cases if "sdf" in case]
    assert cases
    for case in cases:
        moved = case["deformation"]
        offset = torch.from_numpy(moved) if moved.size else None
        vertices, faces = marching_cubes(torch.from_numpy(case["sdf"]), offset)
        assert vertices.dtype == torch.float32
        assert faces.dtype == torch.int64
        assert faces.shape == case["faces"].shape
        # Even in the same order.
        torch.testing.assert_close(vertices, torch.from_numpy(case["vertices"]), atol=1e-6, rtol=0)
        assert (uses_of_edges(faces) == 2).all()
        assert not shares_of_edges(faces).any()
        theirs = volume(torch.from_numpy(case["vertices"]), torch.from_numpy(case["faces"]))
        # Diagonals differ from theirs, which matters by 0.7 % for white noise on a randomly deformed grid.
        noisy = len(faces) > 2.5 * len(case["sdf"]) ** 2
        assert volume(vertices, faces) == pytest.approx(theirs, rel=1e-2 if noisy else 3e-3)


@pytest.mark.parametrize("kind", ["sphere", "noise", "cut by the box", "zeros"])
@pytest.mark.parametrize("bent", [False, True])
def test_marching_cubes_matches_the_slow_twin(kind: str, bent: bool) -> None:
    sdf = {
        "sphere": sphere(9),
        "noise": torch.randn(7, 7, 7),
        "cut by the box": sphere(8, 1.3),
        "zeros": torch.randint(-1, 2, (6, 6, 6)).float(),
    }[kind]
    offset = 0.4 * torch.randn(*sdf.shape, 3) if bent else None
    vertices, faces = marching_cubes(sdf, offset)
    slow_vertices, slow_faces = slow_marching_cubes(sdf, offset)
    assert torch.equal(faces, slow_faces)
    torch.testing.assert_close(vertices, slow_vertices, atol=1e-6, rtol=0)
    assert (uses_of_edges(faces) == 2).all()
    assert not shares_of_edges(faces).any()
    assert volume(vertices, faces) > 0


def test_all_cell_patterns_are_closed_and_oriented() -> None:
    for pattern in range(256):
        crossed = {
            index
            for index, (axis, low) in enumerate(marching_cubes_tables.EDGES)
            if (pattern >> low & 1) != (pattern >> (low | (4, 2, 1)[axis]) & 1)
        }
        loops = marching_cubes_tables.loops(pattern)
        assert sorted(edge for loop in loops for edge in loop) == sorted(crossed)
        sdf = torch.tensor([1.0 if pattern >> i & 1 else -1.0 for i in range(8)]).view(2, 2, 2)
        vertices, faces = marching_cubes(sdf)
        if 0 < pattern < 255:
            assert volume(vertices, faces) > 0
            assert (uses_of_edges(faces) == 2).all()


def test_no_triangle_edge_lies_inside_a_cell_face() -> None:
    def faces_of(edge: int) -> set[tuple[int, int]]:
        axis, low = marching_cubes_tables.EDGES[edge]
        return {
            (other, marching_cubes_tables.corner_offset(low)[other]) for other in range(3) if other != axis
        }

    for pattern in range(256):
        for loop in marching_cubes_tables.loops(pattern):
            sides = {frozenset(pair) for pair in zip(loop, loop[1:] + loop[:1], strict=True)}
            for triangle in marching_cubes_tables.triangulate(loop):
                for a, b in combinations(triangle, 2):
                    assert frozenset((a, b)) in sides or not faces_of(a) & faces_of(b)


@pytest.mark.parametrize("level", [1.0, -1.0, 0.0])
def test_single_sign_is_empty(level: float) -> None:
    vertices, faces = marching_cubes(torch.full((4, 4, 4), level), torch.zeros(4, 4, 4, 3))
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


def test_zero_is_outside() -> None:
    sdf = torch.ones(4, 4, 4)
    sdf[1, 1, 1], sdf[1, 1, 2] = -1, 0
    vertices, faces = marching_cubes(sdf)
    assert len(vertices) == 6
    assert len(faces) == 8
    # The vertex on the edge to the zero node coincides with that node.
    assert (vertices - torch.tensor([-1 / 3, -1 / 3, 1 / 3])).norm(dim=1).min() < 1e-6


def test_offsets_are_in_cells() -> None:
    size = 12
    still, faces = marching_cubes(sphere(size))
    moved, same = marching_cubes(sphere(size), torch.tensor([1.0, 7.25, 0]).expand(size, size, size, 3))
    assert torch.equal(faces, same)
    cell = 2 / (size - 1)
    torch.testing.assert_close(moved, still + torch.tensor([cell, 7.25 * cell, 0]), atol=1e-5, rtol=0)


def test_gradients() -> None:
    sdf = (sphere(5, 0.6).double() + 0.1 * torch.randn(5, 5, 5, dtype=torch.float64)).requires_grad_()
    offset = (0.2 * torch.randn(5, 5, 5, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: marching_cubes(a, b)[0], (sdf, offset))
    weights = torch.randn(len(marching_cubes(sdf, offset)[0]), 3, dtype=torch.float64)
    fast = torch.autograd.grad((marching_cubes(sdf, offset)[0] * weights).sum(), (sdf, offset))
    slow = torch.autograd.grad((slow_marching_cubes(sdf, offset)[0] * weights).sum(), (sdf, offset))
    torch.testing.assert_close(fast, slow)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="sdf must have shape"):
        marching_cubes(torch.zeros(3, 3, 4))
    with pytest.raises(ValueError, match="offset must have shape"):
        marching_cubes(torch.zeros(3, 3, 3), torch.zeros(3, 3, 3))
