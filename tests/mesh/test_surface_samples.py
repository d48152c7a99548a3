"""Samples of a surface: on it, evenly spread, with its normals and colours."""

import numpy as np
import pytest
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.surface_samples import sample_surface


def quad(**attributes):
    """The square [0, 2] x [0, 1] at z = 0.5: a large and two small triangles and one without area."""
    vertices = torch.tensor([[0.0, 0, 0.5], [2, 0, 0.5], [2, 1, 0.5], [0, 1, 0.5], [1, 0.5, 0.5]])
    faces = torch.tensor([[0, 1, 2], [0, 4, 3], [4, 2, 3], [1, 1, 1]])
    return Mesh(vertices, faces, **attributes)


def generator():
    return torch.Generator().manual_seed(0)


def test_samples_are_uniform():
    samples = sample_surface(quad(), 4000, generator())
    assert samples.points.shape == (4000, 3)
    assert (samples.points[:, 2] == 0.5).all()
    cells = (samples.points[:, :2] * 4).long()  # 8 x 4 cells
    counts = torch.bincount(cells[:, 1] * 8 + cells[:, 0], minlength=32)
    assert (counts - 125).abs().max() < 45  # four standard deviations of independent points
    above = (samples.points[:, 1] > samples.points[:, 0] / 2).sum()
    assert abs(int(above) - 2000) <= 1  # exact by area
    assert samples.spacing == pytest.approx((2 / 4000) ** 0.5)
    torch.testing.assert_close(samples.normals, torch.tensor([0.0, 0, 1]).expand(4000, 3))
    assert (samples.colors == 0.5).all()


def test_colours_of_vertices_and_textures():
    uv = quad().vertices[:, :2] / torch.tensor([2.0, 1.0])
    by_vertex = sample_surface(quad(colors=torch.cat((uv, uv[:, :1]), dim=1)), 100, generator())
    expected = by_vertex.points[:, [0, 1, 0]] / torch.tensor([2.0, 1.0, 2.0])
    torch.testing.assert_close(by_vertex.colors, expected)
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :, 0], texture[32:, :, 1] = 255, 255  # red for v < 0.5, green below
    textured = sample_surface(quad(uv=uv, texture=texture, colors=torch.rand(5, 3)), 500, generator())
    inside = (textured.points[:, 1] - 0.5).abs() > 0.05
    red = torch.tensor([1.0, 0, 0]).expand(500, 3)
    green = torch.tensor([0.0, 1, 0]).expand(500, 3)
    expected = torch.where(textured.points[:, 1:2] < 0.5, red, green)
    torch.testing.assert_close(textured.colors[inside], expected[inside], atol=1e-5, rtol=0)


def test_normals_of_vertices_are_interpolated():
    tilted = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 1]]), dim=1).expand(5, 3)
    samples = sample_surface(quad(normals=tilted), 50, generator())
    torch.testing.assert_close(samples.normals, tilted[:1].expand(50, 3))
    samples = sample_surface(quad(normals=torch.zeros(5, 3)), 50, generator())
    torch.testing.assert_close(samples.normals, torch.tensor([0.0, 0, 1]).expand(50, 3))


def test_samples_are_deterministic():
    one, two = sample_surface(quad(), 20, generator()), sample_surface(quad(), 20, generator())
    assert torch.equal(one.points, two.points)


@pytest.mark.parametrize("fault", ["no faces", "no area", "not finite"])
def test_surfaces_without_area(fault):
    mesh = quad()
    if fault == "no faces":
        mesh = mesh.replace(faces=mesh.faces[:0])
    elif fault == "no area":
        mesh = mesh.replace(vertices=torch.zeros(5, 3))
    else:
        mesh = mesh.replace(vertices=mesh.vertices * float("nan"))
    with pytest.raises(UserError, match="no surface with a finite area"):
        sample_surface(mesh, 5, generator())
