"""Splitting of touching solids, checked by trimesh, manifold3d and a slow walk around vertices."""

import io
from collections import defaultdict

import manifold3d
import numpy as np
import pytest
import torch
import trimesh

from tests.helpers.solids import blob, chair, surface
from tests.helpers.trimeshes import ball, to_trimesh
from tests.helpers.voxel_sets import random_voxels, voxel_surface
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.check import check
from triplaneturbo.mesh.io.points import to_stl
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy, weld
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.processing.watertight import corner_fans, watertight


def voxels(*cells):
    full = np.zeros((3, 3, 3), bool)
    for cell in cells:
        full[cell] = True
    return voxel_surface(full)


def slow_fans(faces):
    """Reference: count the fans around all vertices by walking from face to face over edges of two faces."""
    faces = faces.tolist()
    sides = defaultdict(list)
    for number, face in enumerate(faces):
        for k in range(3):
            sides[frozenset((face[k], face[k - 1]))].append(number)
    total = 0
    for vertex in {corner for face in faces for corner in face}:
        left = {number for number, face in enumerate(faces) if vertex in face}
        while left:
            total += 1
            todo = [left.pop()]
            while todo:
                face = faces[todo.pop()]
                for other in face:
                    around = sides[frozenset((vertex, other))]
                    if other != vertex and len(around) == 2:
                        todo += [number for number in around if number in left]
                        left -= set(around)
    return total


def judged(mesh):
    """Return the status and the volume that manifold3d reports for a mesh."""
    solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32)))
    return solid.status(), solid.volume()


def assert_solid(mesh):
    """Assert that all libraries find it two-manifold, in memory and as an STL of positions only."""
    assert check(mesh).printable
    assert slow_fans(mesh.faces) == len(mesh.vertices) == len(weld(mesh.vertices).first)
    shape = to_trimesh(mesh)
    assert shape.is_volume
    status, volume = judged(mesh)
    assert status == manifold3d.Error.NoError
    assert volume == pytest.approx(shape.volume, rel=1e-4)
    printed = trimesh.load(io.BytesIO(to_stl(mesh)), file_type="stl")
    assert printed.is_volume
    assert len(printed.vertices) == len(mesh.vertices)


TOUCHING = {
    "along an edge": [(0, 0, 0), (1, 1, 0)],
    "in a point": [(0, 0, 0), (1, 1, 1)],
    "along an edge, joined around one end": [(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1)],
    "along an edge, joined around both ends": [
        (0, 0, 1),
        (1, 1, 1),
        *((x, y, z) for z in (0, 2) for x in (0, 1) for y in (0, 1)),
    ],
    "along two edges in a row": [(0, 0, 0), (1, 1, 0), (0, 0, 1), (1, 1, 1)],
    "four around a point": [(0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)],
}


@pytest.mark.parametrize("name", TOUCHING)
def test_touching_solids_are_separated(name):
    mesh = voxels(*TOUCHING[name])
    assert slow_fans(mesh.faces) > len(mesh.vertices)
    whole = watertight(mesh)
    assert_solid(whole)
    assert check(whole).volume == pytest.approx(check(mesh).volume, rel=0.03)
    torch.testing.assert_close(whole.bounds, mesh.bounds, atol=0.01, rtol=0)


@pytest.mark.parametrize("seed", range(12))
def test_random_touching_solids_are_separated(seed):
    full = random_voxels(seed)
    mesh = voxel_surface(full)
    whole = watertight(mesh)
    assert_solid(whole)
    assert check(whole).volume == pytest.approx(full.mean(), rel=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_fans_match_the_slow_twin(seed):
    faces = voxel_surface(random_voxels(seed)).faces
    assert len(corner_fans(faces).unique()) == slow_fans(faces)


def test_edges_joined_by_simplification_are_split():
    """Two plates that nearly touch, simplified until they do."""
    low, high = (trimesh.creation.box((1, 1, 0.1)).subdivide().subdivide() for _ in range(2))
    high.apply_translation((0.5, 0.5, 0.1))  # a part of its lower side coincides with the other's upper side
    both = trimesh.util.concatenate([low, high])
    joined = weld(torch.tensor(np.round(both.vertices, 6), dtype=torch.float32))
    mesh = Mesh(
        torch.tensor(np.round(both.vertices, 6), dtype=torch.float32)[joined.first],
        joined.index[torch.tensor(both.faces)],
    )
    assert slow_fans(mesh.faces) > len(mesh.vertices)
    assert_solid(watertight(mesh))


@pytest.mark.parametrize("solid", [blob, chair])
@pytest.mark.parametrize("budget", [10**6, 600, 120])
def test_surfaces_of_fields(solid, budget):
    mesh, _ = simplify(tidy(surface(solid, 28)), budget)
    whole = watertight(mesh)
    assert_solid(whole)
    if check(mesh).crowded_edges == 0 and slow_fans(mesh.faces) == len(mesh.vertices):
        assert torch.equal(whole.faces, mesh.faces)
        assert torch.equal(whole.vertices, mesh.vertices)


def test_seams_are_joined_and_normals_recomputed():
    mesh = ball()
    corners = mesh.faces.reshape(-1)
    split = Mesh(
        mesh.vertices[corners],
        torch.arange(len(corners)).reshape(-1, 3),
        normals=torch.zeros(len(corners), 3),
    )
    whole = watertight(split)
    assert_solid(whole)
    torch.testing.assert_close(whole.normals, whole.vertices / 0.5, atol=0.02, rtol=0)


def test_degenerate_faces_get_an_area():
    """A corner of one face is on its longest edge: without the face there would be a hole."""
    shape = trimesh.creation.box()
    mesh = Mesh(torch.tensor(shape.vertices, dtype=torch.float32), torch.tensor(shape.faces).long())
    a, b, c = mesh.faces[0].tolist()
    vertices = torch.cat((mesh.vertices, (mesh.vertices[a] + mesh.vertices[b])[None] / 2))
    new = len(mesh.vertices)
    # The face is cut at the midpoint of an edge, its neighbour keeps the edge, a flat face is in between.
    faces = torch.cat((mesh.faces[1:], torch.tensor([[a, new, c], [new, b, c], [a, b, new]])))
    flat = Mesh(vertices, faces)
    assert check(flat).flat_faces == 1
    assert check(flat).manifold
    assert_solid(watertight(flat))


def test_unrepairable_meshes_are_refused():
    mesh = ball(subdivisions=1)
    hole = mesh.replace(faces=mesh.faces[1:])
    turned = mesh.replace(faces=torch.cat((mesh.faces[:1].flip(1), mesh.faces[1:])))
    inside_out = mesh.replace(faces=mesh.faces.flip(1))
    empty = mesh.replace(faces=mesh.faces[:0])
    for broken, why in (
        (hole, "3 edges border a hole"),
        (turned, "opposite orientation"),
        (inside_out, "inside out"),
        (empty, "no faces"),
    ):
        with pytest.raises(UserError, match=f"cannot be made watertight .*{why}.*turn watertight off"):
            watertight(broken)
    with pytest.raises(ValueError, match="unwrapping"):
        watertight(mesh.replace(uv=torch.rand(len(mesh.vertices), 2)))
