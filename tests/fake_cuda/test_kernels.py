"""No compiled kernel is called for a CUDA tensor: it has a twin in torch, or its caller copies to the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import pytest
import torch
from numba.core.dispatcher import Dispatcher
from torch import Tensor

from tests.helpers.fake_cuda import CUDA, FakeCuda, Synchronization
from tests.helpers.paths import ROOT
from tests.helpers.shapes import textured
from triplaneturbo.mesh.texture import interpolate
from triplaneturbo.mesh.uv.atlas import Atlas, rasterize_atlas
from triplaneturbo.mesh.uv.dilation import nearest_covered
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.mesh.voxels import filled
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import eikonal, render_grid
from triplaneturbo.render.rasterizer import rasterize
from triplaneturbo.render.rasterizers import numba_zbuffer
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField

PACKAGE = ROOT / "triplaneturbo"
# Modules with kernels that have a twin in torch, and where the test is that compares them: (file, twin).
TWINS = {
    "render/grid_gradients.py": ("tests/render/test_grid_renderer.py", '"torch"'),
    "render/neus_kernels.py": ("tests/render/test_grid_renderer.py", '"torch"'),
    "render/zbuffer.py": ("tests/render/test_rasterizer.py", "torch_zbuffer.rasterize"),
    "mesh/texture_kernels.py": ("tests/mesh/test_texture.py", "plain_texture"),
    "representations/field_kernels.py": ("tests/representations/test_field_kernels.py", "query_in_torch"),
    "mesh/uv/atlas.py": ("tests/mesh/test_texture.py", "texel_owners"),
    "mesh/uv/dilation.py": ("tests/mesh/test_texture.py", "jump_flood"),
}
# Modules whose work is done on the CPU for any device: meshes are unwrapped there, in a fixed order, so that
# results are reproducible; voxels and the toy world belong to evaluation and to data.
ON_THE_CPU = {
    "mesh/uv/box_projection.py",
    "mesh/uv/charts.py",
    "mesh/uv/packing.py",
    "mesh/uv/unwrap.py",
    "mesh/voxels.py",
    "toyworld/scene/kernels.py",
    "toyworld/training/pictures.py",
}


def test_every_module_with_kernels_is_known() -> None:
    """A new one is to be listed above, with a test of its twin where it has one."""
    using = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "\n@kernel" in path.read_text(encoding="utf-8")
    }
    assert using == set(TWINS) | ON_THE_CPU


@pytest.mark.parametrize("module", TWINS)
def test_the_twin_is_compared_with_the_kernel(module: str) -> None:
    file, twin = TWINS[module]
    assert twin in (ROOT / file).read_text(encoding="utf-8")


@contextmanager
def _kernels_refused() -> Iterator[None]:
    """Context in which a call of a kernel of `TWINS` raises AssertionError."""
    with ExitStack() as stack:
        for name in TWINS:
            module = importlib.import_module(f"triplaneturbo.{name.removesuffix('.py').replace('/', '.')}")
            kernels = [key for key, value in vars(module).items() if isinstance(value, Dispatcher)]
            assert kernels
            for key in kernels:
                stack.enter_context(patch.object(module, key, side_effect=AssertionError(f"{name}: {key}")))
        yield


def _render(device: torch.device) -> list[Tensor]:
    sdf = (torch.rand(1, 8, 8, 8) - 0.5).to(device).requires_grad_()
    rays = (torch.rand(1, 5, 3) - 0.5).to(device)
    view = render_grid(sdf, rays * 4, torch.nn.functional.normalize(-rays, dim=-1), 20.0, 8)
    (view.opacity.sum() + view.normal.sum()).backward()
    assert sdf.grad is not None
    return [view.opacity, view.depth, view.normal, sdf.grad]


def _eikonal(device: torch.device) -> list[Tensor]:
    sdf = torch.rand(1, 8, 8, 8).to(device).requires_grad_()
    loss = eikonal(sdf)
    loss.sum().backward()
    assert sdf.grad is not None
    return [loss, sdf.grad]


def _rasterize(device: torch.device) -> list[Tensor]:
    mesh = textured()
    cameras = orbit([0.0, 90.0], 20.0, 2.0).to(device)
    return list(rasterize(mesh.vertices.to(device), mesh.faces.to(device), cameras, 16, 24))


def _atlas(device: torch.device) -> list[Tensor]:
    mesh = textured()
    assert mesh.uv is not None
    return list(rasterize_atlas(mesh.uv.to(device), mesh.faces.to(device), 512))


def _dilation(device: torch.device) -> list[Tensor]:
    return [nearest_covered((torch.rand(32, 24) > 0.5).to(device))]


def _field(device: torch.device) -> list[Tensor]:
    config = GeneratorConfig(plane_channels=2, mlp_width=4)
    field = TriplaneField(torch.rand(6, 2, 8, 8).to(device), FieldDecoder(config).to(device))
    points = torch.rand(5, 3).to(device)
    return [field.sdf(points), field.offset(points), field.rgb(points)]


def _interpolation(device: torch.device) -> list[Tensor]:
    mesh = textured()
    faces, corner = mesh.faces.to(device), torch.zeros(5, dtype=torch.long).to(device)
    atlas = Atlas(
        corner, corner, torch.ones(5, 3).to(device), torch.zeros(4, 4, dtype=torch.int32).to(device)
    )
    return [interpolate(mesh.vertices.to(device), faces, atlas)]


@pytest.mark.parametrize("call", [_render, _eikonal, _rasterize, _atlas, _dilation, _field, _interpolation])
def test_a_twin_serves_cuda(cuda: FakeCuda, call: Callable[[torch.device], list[Tensor]]) -> None:
    cuda.synchronizations.clear()
    with _kernels_refused():
        results = call(CUDA)
        assert all(result.device == CUDA for result in results)
        assert not any(found.kind == "download" for found in cuda.synchronizations)
        with pytest.raises(AssertionError, match="py: "):
            call(torch.device("cpu"))


def test_the_kernels_of_the_renderer_refuse_cuda(cuda: FakeCuda) -> None:
    sdf, rays = torch.rand(1, 8, 8, 8, device=CUDA), torch.rand(1, 5, 3, device=CUDA)
    with pytest.raises(ValueError, match="float32 on the CPU"):
        render_grid(sdf, rays, rays, 20.0, 8, backend="numba")
    with pytest.raises(ValueError, match="float32 on the CPU"):
        eikonal(sdf, "numba")


def test_work_on_the_cpu_copies_there_by_itself(cuda: FakeCuda) -> None:
    mesh = textured()
    mesh = mesh.replace(vertices=mesh.vertices.to(CUDA), faces=mesh.faces.to(CUDA), uv=None)
    cuda.synchronizations.clear()
    unwrap(mesh, "fast", 512)
    filled(mesh.vertices, mesh.faces, 16)
    numba_zbuffer.rasterize(mesh.vertices, mesh.faces, orbit(0.0, 0.0, 2.0).to(CUDA), 8, 8)
    for place in (
        "mesh/uv/unwrap.py:unwrap",
        "mesh/voxels.py:filled",
        "render/rasterizers/numba_zbuffer.py:rasterize",
    ):
        assert Synchronization("download", place) in cuda.synchronizations
