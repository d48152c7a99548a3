"""The registry of rasterizer backends: the rule of choice, and a new backend used by the previews."""

from __future__ import annotations

import pytest
import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import thumbnail
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.rasterizer import rasterize, rasterizer
from triplaneturbo.render.rasterizers import nvdiffrast_cuda, registry
from triplaneturbo.render.rasterizers.base import Fragments, Rasterizer


def left_half(vertices, faces, cameras, height, width):
    """Show the centre of face 0 in the left half of every image."""
    triangle = torch.full((len(cameras), height, width), -1)
    triangle[..., : width // 2] = 0
    shown = (triangle == 0).to(vertices.dtype)
    return Fragments(triangle, (shown / 3)[..., None].expand(-1, -1, -1, 3), shown * 2)


TRIANGLE = Mesh(torch.tensor([[0.0, -0.1, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]]), torch.tensor([[0, 1, 2]]))


@pytest.fixture
def with_dummy(monkeypatch):
    dummy = Rasterizer("dummy", lambda device: device.type == "cpu", left_half)
    monkeypatch.setattr(registry, "RASTERIZERS", {dummy.name: dummy, **registry.RASTERIZERS})


def test_dummy_rasterizer_renders_previews(with_dummy):
    assert rasterizer("cpu") == "dummy"
    image = thumbnail(TRIANGLE, 32)
    assert (image[:, :16] != 255).any(-1).all()
    assert (image[:, 16:] == 255).all()


def test_default_rasterizer_leaves_the_corner_empty():
    assert (thumbnail(TRIANGLE, 32)[0, 0] == 255).all()


def test_gradients_come_with_any_backend(with_dummy):
    vertices = TRIANGLE.vertices.clone().requires_grad_()
    fragments = rasterize(vertices, TRIANGLE.faces, orbit(0, 0, 2), 8, 8)
    fragments.depth.sum().backward()
    assert vertices.grad.abs().sum() > 0


@pytest.mark.parametrize(("context", "name"), [("context", "nvdiffrast"), (None, "torch")])
def test_nvdiffrast_is_preferred_on_cuda_where_it_works(monkeypatch, context, name):
    monkeypatch.setattr(nvdiffrast_cuda, "_context", lambda device: context)
    assert rasterizer("cuda") == name
    assert rasterizer("cpu") == "numba"
