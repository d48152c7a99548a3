"""Printability check against trimesh and a brute-force count of edges."""

from collections import Counter

import numpy as np
import pytest
import torch
import trimesh

from tests.helpers.shapes import textured
from tests.helpers.solids import blob, chair, surface, torus
from tests.helpers.trimeshes import ball, from_trimesh, joined, to_trimesh
from tests.helpers.voxel_sets import random_voxels, voxel_surface
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.check import Check, check, edge_faults
from triplaneturbo.mesh.io import Placement
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy


def slow_faults(faces):
    ways = Counter((face[k - 1], face[k]) for face in faces.tolist() for k in range(3))
    edges = {tuple(sorted(way)) for way in ways}
    counts = {(a, b): (ways[a, b], ways[b, a]) for a, b in edges}
    return (
        sum(sum(count) == 1 for count in counts.values()),
        sum(sum(count) > 2 for count in counts.values()),
        sum(count in ((2, 0), (0, 2)) for count in counts.values()),
    )


@pytest.mark.parametrize("seed", range(6))
def test_edge_counts_match_the_slow_twin(seed):
    draw = torch.Generator().manual_seed(seed)
    whole = voxel_surface(random_voxels(seed)).faces
    some = whole[torch.rand(len(whole), generator=draw) < 0.9]
    turn = torch.rand(len(some), 1, generator=draw) < 0.1
    for faces in (whole, some, torch.where(turn, some.flip(1), some)):
        assert edge_faults(faces) == slow_faults(faces)


@pytest.mark.parametrize("solid", [blob, torus, chair])
def test_solid_properties_match_trimesh(solid):
    mesh = tidy(surface(solid, 40))
    shape = to_trimesh(mesh)
    found = check(mesh)
    assert found.printable
    assert found.closed
    assert found.manifold
    assert found.oriented
    assert (found.vertices, found.faces) == (len(shape.vertices), len(shape.faces))
    assert found.components == shape.body_count
    assert found.volume == pytest.approx(shape.volume, rel=1e-6)
    assert found.area == pytest.approx(shape.area, rel=1e-6)
    assert found.size == pytest.approx(tuple(shape.extents), rel=1e-6)


def test_seams_count_as_joined_at_any_position():
    mesh = textured()
    shape = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy())  # it welds vertices, too
    for move in (0.0, 50.0):
        found = check(mesh.replace(vertices=mesh.vertices + move))
        assert found.printable
        assert found.components == 1
        assert found.vertices == len(shape.vertices)
        assert found.volume == pytest.approx(shape.volume, rel=1e-4)


def test_size_is_that_of_the_file():
    mesh = ball(0.5)
    found = check(mesh, Placement(size=0.04))
    assert found.size == pytest.approx((0.04, 0.04, 0.04))
    assert found.volume == pytest.approx(to_trimesh(mesh).volume * 0.04**3, rel=1e-5)
    assert found.area == pytest.approx(to_trimesh(mesh).area * 0.04**2, rel=1e-5)
    assert found.sentence == "Ready for printing: a closed solid in one piece, 4 cm x 4 cm x 4 cm, 33.2 cm³."
    assert check(joined(mesh, ball(0.1, (3, 0, 0))), Placement(size=7.2)).components == 2
    with pytest.raises(UserError, match="metres"):
        check(mesh, Placement(size=0.0))


def broken():
    mesh = ball(subdivisions=1)
    flat = mesh.vertices.clone()
    a, b, c = mesh.faces[0].tolist()
    flat[a] = (flat[b] + flat[c]) / 2
    double = torch.cat((mesh.faces, mesh.faces[:1], mesh.faces[:1].flip(1)))
    sheet = from_trimesh(
        trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [2, 1, 0]], process=False)
    )
    return {
        "hole": (mesh.replace(faces=mesh.faces[1:]), "3 edges border a hole"),
        "crowded": (mesh.replace(faces=double), "3 edges have more than two faces"),
        "turned": (
            mesh.replace(faces=torch.cat((mesh.faces[:1].flip(1), mesh.faces[1:]))),
            "3 edges join faces of opposite orientation",
        ),
        "flat": (mesh.replace(vertices=flat), "1 face has no area"),
        "inside out": (mesh.replace(faces=mesh.faces.flip(1)), "it is inside out"),
        "no volume": (sheet, "it encloses no volume"),
        "empty": (mesh.replace(faces=mesh.faces[:0]), "the mesh has no faces"),
    }


@pytest.mark.parametrize("name", broken())
def test_defects_are_reported(name):
    mesh, why = broken()[name]
    found = check(mesh)
    assert not found.printable
    assert found.sentence == f"Not ready for printing: {why}."
    if name not in ("empty", "no volume"):
        shape = to_trimesh(mesh)
        assert not (shape.is_volume and shape.area_faces.min() > 1e-7)
        assert found.manifold == (name not in ("hole", "crowded"))


@pytest.mark.parametrize(
    ("size", "volume", "said"),
    [
        ((2.0, 1.0, 0.5), 0.25, "2 m x 1 m x 50 cm, 0.25 m³"),
        ((0.2, 0.1, 0.1), 0.0015, "20 cm x 10 cm x 10 cm, 1.5 l"),
        ((0.02, 0.009, 0.0005), 5e-7, "2 cm x 9 mm x 0.5 mm, 0.5 cm³"),
    ],
)
def test_sizes_are_formatted(size, volume, said):
    assert said in Check(8, 12, 3, 0, 0, 0, 0, size, 1.0, volume).sentence
    assert "in 3 pieces" in Check(8, 12, 3, 0, 0, 0, 0, size, 1.0, volume).sentence


def test_stray_vertices_are_ignored():
    mesh = ball()
    stray = Mesh(torch.cat((mesh.vertices, torch.full((1, 3), 9.0))), mesh.faces)
    assert check(stray) == check(mesh)
    assert np.isfinite(check(stray).volume)
