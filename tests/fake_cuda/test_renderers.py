"""Renderers of meshes and Gaussians on CUDA; the volume renderer is in test_training.py, at its full size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.fake_cuda import CUDA, FakeCuda
from tests.helpers.shapes import textured
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.render.rasterizer import interpolate, rasterize, rasterizer
from triplaneturbo.render.rasterizers import nvdiffrast_cuda
from triplaneturbo.render.splatting.rasterizer import rasterize_gaussians
from triplaneturbo.representations.density_control import (
    DensityOptions,
    ViewSpaceGradients,
    densify,
    prune,
    reset_opacity,
)
from triplaneturbo.representations.gaussians import Gaussians

SIZE = 512


def _cameras() -> Cameras:
    return orbit([0.0, 90.0, 180.0, 270.0], 20.0, 2.0).to(CUDA)


def _nvdiffrast() -> SimpleNamespace:
    """A stand-in with nvdiffrast's arguments and results."""

    def rasterize(context: Any, pos: Tensor, tri: Tensor, resolution: list[int], grad_db: bool) -> tuple:
        assert (pos.device, pos.dtype, tri.device, tri.dtype) == (CUDA, torch.float32, CUDA, torch.int32)
        return torch.zeros(len(pos), *resolution, 4, device=CUDA), None

    return SimpleNamespace(rasterize=rasterize)


@pytest.mark.parametrize("backend", ["torch", "nvdiffrast"])
def test_meshes_with_gradients(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    if backend == "nvdiffrast":
        monkeypatch.setattr(nvdiffrast_cuda, "_nvdiffrast", _nvdiffrast)
        monkeypatch.setattr(nvdiffrast_cuda, "_context", lambda device: "context")
    assert rasterizer(CUDA) == backend
    mesh = textured()
    vertices, faces = mesh.vertices.to(CUDA).requires_grad_(), mesh.faces.to(CUDA)
    colors = torch.rand(len(vertices), 3, device=CUDA, requires_grad=True)
    fragments = rasterize(vertices, faces, _cameras(), SIZE, SIZE)
    image = interpolate(colors, faces, fragments.triangle, fragments.bary)
    (image.sum() + fragments.depth.sum()).backward()
    assert fragments.triangle.shape == fragments.depth.shape == (4, SIZE, SIZE)
    for tensor in (vertices, colors):
        assert tensor.grad is not None
        assert (tensor.grad.device, tensor.grad.dtype) == (CUDA, torch.float32)


def test_gaussians_are_rendered_optimized_and_densified(cuda: FakeCuda) -> None:
    count = 5000
    points = torch.rand(count, 3, device=CUDA) * 2 - 1
    normals = torch.nn.functional.normalize(points, dim=-1)
    gaussians = Gaussians.from_points(points, torch.rand(count, 3, device=CUDA), 0.02, normals)
    optimizer = torch.optim.Adam(gaussians.parameter_groups(1.0), eps=1e-15)
    # FakeCuda makes up one number for all counts; with it, all tiles have one Gaussian.
    seen = rasterize_gaussians(
        gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities, gaussians.colors,
        _cameras(), SIZE, SIZE, torch.ones(3, device=CUDA),
    )  # fmt: skip
    seen.means2d.retain_grad()
    (seen.rgb.sum() + seen.depth.sum() + seen.normal.sum() + seen.opacity.sum()).backward()
    assert all(p.grad is not None and p.grad.device == CUDA for p in gaussians.parameters())
    gradients = ViewSpaceGradients(count, CUDA)
    assert seen.means2d.grad is not None
    gradients.add(seen.means2d.grad, seen.visible, SIZE, SIZE)
    optimizer.step()
    gaussians.constrain_()
    densify(gaussians, gradients, 1.0, DensityOptions(), torch.Generator().manual_seed(0), optimizer)
    prune(gaussians, 1.0, DensityOptions(), optimizer)
    reset_opacity(gaussians, optimizer)
    assert all(p.device == CUDA and p.dtype == torch.float32 for p in gaussians.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert len(moments) == 10
    assert all(value.device == CUDA for value in moments)
