"""Cleaning, floaters and simplification, against handmade meshes and trimesh."""

from collections import Counter

import numpy as np
import pytest
import torch
import trimesh

from tests.helpers.trimeshes import ball, from_trimesh, joined, to_trimesh
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh, vertex_normals
from triplaneturbo.mesh.processing.clean import (
    Dropped,
    drop_floaters,
    remove_duplicate_faces,
    smooth_normals,
    tidy,
    weld,
)
from triplaneturbo.mesh.processing.simplify import open_edges, simplify


def slow_components(faces):
    """Reference: connected components as sets of vertices, by graph traversal."""
    neighbours = {}
    for a, b, c in faces.tolist():
        for p, q in ((a, b), (b, c), (c, a)):
            neighbours.setdefault(p, set()).add(q)
            neighbours.setdefault(q, set()).add(p)
    pieces, seen = [], set()
    for start in neighbours:
        if start in seen:
            continue
        piece, todo = set(), [start]
        while todo:
            vertex = todo.pop()
            if vertex not in piece:
                piece.add(vertex)
                todo.extend(neighbours[vertex])
        seen |= piece
        pieces.append(piece)
    return pieces


def test_weld_joins_equal_positions_in_order_of_appearance():
    vertices = torch.tensor([[1.0, 0, 0], [0.0, 0, 0], [1.0, 0, 0], [-0.0, 0, 0], [0.5, 0, 0]])
    index, first = weld(vertices)
    assert index.tolist() == [0, 1, 0, 1, 2]
    assert first.tolist() == [0, 1, 4]
    assert torch.equal(vertices[first][index] + 0.0, vertices + 0.0)


def test_smooth_normals_ignore_seams():
    mesh = ball()
    split = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), torch.arange(len(mesh.faces) * 3).reshape(-1, 3))
    whole = vertex_normals(mesh.vertices, mesh.faces)
    normals = smooth_normals(split.vertices, split.faces)
    torch.testing.assert_close(normals, whole[mesh.faces].reshape(-1, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normals, split.vertices / 0.5, atol=0.02, rtol=0)


def test_floaters_are_dropped_and_large_pieces_kept():
    mesh = joined(ball(0.5), ball(0.3, (0.9, 0, 0)), ball(0.04, (0, 0, 0.9), 1), ball(0.02, (0, 0.9, 0), 1))
    mesh = mesh.replace(colors=mesh.vertices * 0.5 + 0.5)
    kept, dropped = drop_floaters(mesh)
    assert dropped.components == 2
    assert dropped.faces == 160
    assert dropped.area == pytest.approx((0.04**2 + 0.02**2) / (0.5**2 + 0.3**2 + 0.04**2 + 0.02**2), rel=0.2)
    assert sorted(len(piece) for piece in slow_components(kept.faces)) == [642, 642]
    torch.testing.assert_close(kept.colors, kept.vertices * 0.5 + 0.5)
    assert len(kept.vertices) == 1284
    assert to_trimesh(kept).is_watertight


@pytest.mark.parametrize("fraction", [0.0, 0.005, 0.2, 0.5, 1.0])
def test_components_match_the_slow_twin(fraction):
    generator = torch.Generator().manual_seed(3)
    balls = [
        ball(float(0.03 + 0.3 * torch.rand(1, generator=generator)), (2.0 * k, 0, 0), k % 3) for k in range(9)
    ]
    mesh = joined(*balls)
    shape = to_trimesh(mesh)
    areas = [
        shape.area_faces[np.isin(shape.faces[:, 0], sorted(piece))].sum()
        for piece in slow_components(mesh.faces)
    ]
    stay = [area >= fraction * max(areas) for area in areas]
    kept, dropped = drop_floaters(mesh, fraction)
    assert len(slow_components(kept.faces)) == sum(stay)
    assert dropped.components == 9 - sum(stay)
    assert dropped.faces == len(mesh.faces) - len(kept.faces)
    expected = sum(area for area, stays in zip(areas, stay, strict=True) if stays)
    assert to_trimesh(kept).area == pytest.approx(expected, rel=1e-4)


def test_connected_thin_parts_and_sheets_are_kept():
    wire = from_trimesh(trimesh.creation.cylinder(0.002, height=1.0, sections=6))
    sheet = from_trimesh(trimesh.creation.box((0.4, 0.4, 0.0005)))
    shifted = sheet.replace(vertices=sheet.vertices + torch.tensor([0.0, 0.0, 2.0]))
    body = ball(0.5, (1.0, 0.0, 0.0))
    # The wire shares one vertex with the body: it is moved to the same position.
    wire = wire.replace(vertices=wire.vertices - wire.vertices[0] + body.vertices[0])
    mesh = joined(body, wire, shifted)
    kept, dropped = drop_floaters(mesh)
    assert dropped == Dropped()
    assert kept is mesh


def test_seams_do_not_separate_components():
    mesh = ball()
    corners = mesh.faces.reshape(-1)
    split = Mesh(
        mesh.vertices[corners],
        torch.arange(len(corners)).reshape(-1, 3),
        uv=torch.rand(len(corners), 2),
        tangents=torch.rand(len(corners), 4),
    )
    assert drop_floaters(split, 0.5) == (split, Dropped())


def test_invalid_fractions_and_empty_meshes():
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            drop_floaters(ball(), fraction)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert drop_floaters(empty) == (empty, Dropped())
    assert len(tidy(empty).faces) == 0


def test_tidy_drops_degenerate_faces_and_keeps_the_surface_closed():
    mesh = ball(subdivisions=2)
    # Pull one vertex onto its neighbour: two faces lose their area. Add a stray vertex and a double corner.
    a, b, _ = mesh.faces[7].tolist()
    vertices = mesh.vertices.clone()
    vertices[b] = vertices[a]
    faces = torch.cat((mesh.faces, torch.tensor([[5, 5, 9]])))
    dirty = Mesh(torch.cat((vertices, torch.zeros(1, 3))), faces, colors=torch.rand(len(vertices) + 1, 3))
    clean = tidy(dirty)
    assert len(clean.faces) == len(mesh.faces) - 2
    assert len(clean.vertices) == len(mesh.vertices) - 1
    assert len(clean.colors) == len(clean.vertices)
    shape = to_trimesh(clean)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.area_faces.min() > 1e-9
    assert shape.area == pytest.approx(trimesh.Trimesh(vertices.numpy(), mesh.faces.numpy()).area, rel=1e-6)


def test_tidy_removes_opposite_faces():
    """A flat flap: two triangles on the same three vertices once a zero-length edge is collapsed."""
    mesh = ball(subdivisions=1)
    v = len(mesh.vertices)
    a, b, _ = mesh.faces[0].tolist()
    # A fin on edge ab, whose two sides meet in two vertices at the same position.
    x = mesh.vertices[a] + mesh.vertices[b]
    vertices = torch.cat((mesh.vertices, x[None], x[None]))
    flap = torch.tensor([[a, v, b], [b, v + 1, a], [a, v + 1, v], [b, v, v + 1]])
    clean = tidy(Mesh(vertices, torch.cat((mesh.faces, flap))))
    assert torch.equal(clean.vertices, mesh.vertices)
    assert torch.equal(clean.faces, mesh.faces)


def test_duplicate_faces_match_counting_them_one_by_one():
    faces = torch.randint(0, 5, (300, 3))
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    assert len(remove_duplicate_faces(faces[:0])) == 0
    turns = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]

    def orientation(face: list[int]) -> int:
        order = sorted(face)
        return 1 if any(face == [order[turn] for turn in each] for each in turns) else -1

    wanted, totals = [], Counter()
    for face in faces.tolist():
        totals[frozenset(face)] += orientation(face)
    kept = set()
    for face in faces.tolist():
        corners = frozenset(face)
        if corners not in kept and orientation(face) * totals[corners] > 0:
            kept.add(corners)
            wanted.append(face)
    assert remove_duplicate_faces(faces).tolist() == wanted


def test_tidy_keeps_a_clean_mesh():
    mesh = ball()
    clean = tidy(mesh)
    assert torch.equal(clean.vertices, mesh.vertices)
    assert torch.equal(clean.faces, mesh.faces)


def test_simplify_keeps_the_shape_closed_and_within_the_budget():
    mesh = ball(0.8, subdivisions=5)
    mesh = mesh.replace(normals=mesh.vertices / 0.8, colors=mesh.vertices * 0.5 + 0.5)
    small, report = simplify(mesh, 3000)
    assert report.before == 20480
    assert report.after == len(small.faces) <= 3000
    assert report.after > 2900
    assert report.open_edges == 0
    shape = to_trimesh(small)
    assert shape.is_watertight
    assert shape.is_winding_consistent
    assert shape.volume == pytest.approx(to_trimesh(mesh).volume, rel=0.01)
    assert (small.vertices.norm(dim=1) - 0.8).abs().max() < 0.01
    torch.testing.assert_close(small.normals, small.vertices / 0.8, atol=0.1, rtol=0)
    torch.testing.assert_close(small.colors, small.vertices * 0.5 + 0.5, atol=0.05, rtol=0)


def test_simplify_is_deterministic_and_does_nothing_within_the_budget():
    mesh = ball(subdivisions=4)
    one, two = simplify(mesh, 1000)[0], simplify(mesh, 1000)[0]
    assert torch.equal(one.vertices, two.vertices)
    assert torch.equal(one.faces, two.faces)
    same, report = simplify(mesh, len(mesh.faces))
    assert same is mesh
    assert report.before == report.after == len(mesh.faces)


def test_simplify_refuses_small_budgets_and_unwrapped_meshes():
    with pytest.raises(UserError, match="at least 4"):
        simplify(ball(), 3)
    with pytest.raises(ValueError, match="unwrapping"):
        simplify(ball().replace(uv=torch.rand(642, 2)), 100)


def test_open_edges_counts_borders_and_junctions():
    mesh = ball(subdivisions=1)
    assert open_edges(mesh.faces) == 0
    assert open_edges(mesh.faces[1:]) == 3
    assert open_edges(torch.cat((mesh.faces, mesh.faces[:1]))) == 3
    assert open_edges(mesh.faces[:0]) == 0
