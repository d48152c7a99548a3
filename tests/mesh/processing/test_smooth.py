"""Smoothing against a plain loop; it must not shrink the surface, open it, or split seams."""

import numpy as np
import pytest
import torch

from tests.helpers.solids import blob, box, chair, rough, surface, torus
from tests.helpers.trimeshes import ball, to_trimesh
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy
from triplaneturbo.mesh.processing.simplify import open_edges
from triplaneturbo.mesh.processing.smooth import smooth


def slow(mesh, passes):
    """Reference: vertex by vertex."""
    neighbours = [set() for _ in mesh.vertices]
    for a, b, c in mesh.faces.tolist():
        for p, q in ((a, b), (b, c), (c, a)):
            neighbours[p].add(q)
            neighbours[q].add(p)
    places = mesh.vertices.double().numpy()
    for _ in range(passes):
        for step in (0.5, -0.52):
            means = np.stack([places[sorted(near)].mean(0) for near in neighbours])
            places = places + step * (means - places)
    return places


@pytest.mark.parametrize("passes", [1, 7])
def test_smoothing_matches_the_slow_twin(passes):
    mesh = tidy(surface(blob, 20))
    np.testing.assert_allclose(smooth(mesh, passes).vertices, slow(mesh, passes), atol=1e-6)


@pytest.mark.parametrize("solid", [blob, torus, chair, box])
@pytest.mark.parametrize("passes", [5, 20, 50])
def test_smoothing_keeps_volume_and_closedness(solid, passes):
    mesh = tidy(surface(solid, 48))
    even = smooth(mesh, passes)
    assert torch.equal(even.faces, mesh.faces)
    assert to_trimesh(even).is_watertight
    assert to_trimesh(even).volume == pytest.approx(to_trimesh(mesh).volume, rel=0.022)
    torch.testing.assert_close(even.bounds, mesh.bounds, atol=0.04, rtol=0)


def test_smoothing_removes_noise():
    noisy = tidy(surface(rough, 64))
    radius = [smooth(noisy, passes).vertices.norm(dim=1).std() for passes in (0, 5, 20)]
    assert radius[1] < 0.92 * radius[0]
    assert radius[2] < 0.82 * radius[0]


def test_zero_iterations_change_nothing_and_smoothing_is_deterministic():
    mesh = ball()
    assert smooth(mesh, 0) is mesh
    assert torch.equal(smooth(mesh, 3).vertices, smooth(mesh, 3).vertices)
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert smooth(empty, 3) is empty


def test_coincident_vertices_stay_together():
    mesh = ball()
    corners = mesh.faces.reshape(-1)
    split = Mesh(mesh.vertices[corners], torch.arange(len(corners)).reshape(-1, 3))
    torch.testing.assert_close(
        smooth(split, 4).vertices, smooth(mesh, 4).vertices[corners], atol=1e-6, rtol=0
    )
    assert open_edges(tidy(smooth(mesh, 4)).faces) == 0


def test_normals_are_recomputed_and_colours_kept():
    mesh = tidy(surface(blob, 24))
    mesh = mesh.replace(normals=torch.zeros_like(mesh.vertices), colors=torch.rand(len(mesh.vertices), 3))
    even = smooth(mesh, 5)
    assert torch.equal(even.colors, mesh.colors)
    expected = np.asarray(to_trimesh(even).vertex_normals)
    assert (even.normals.numpy() * expected).sum(1).min() > 0.6  # trimesh weighs by angles
    torch.testing.assert_close(even.normals.norm(dim=1), torch.ones(len(mesh.vertices)))


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="passes must be at least 0, not -1"):
        smooth(ball(), -1)
    with pytest.raises(ValueError, match="unwrapping"):
        smooth(ball().replace(uv=torch.rand(642, 2)), 1)
