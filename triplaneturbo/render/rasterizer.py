"""Mesh rasterizer: the visible triangle and barycentrics of each pixel, and attribute interpolation in torch.

On the CPU it uses a numba kernel (zbuffer.py). Compared with Embree (embreex), the images are the same, but a
mesh of 80,000 faces at 512^2 takes about 9 ms instead of 80 ms (2 cores; see `benchmarks/raster.py`). numba
has wheels for Python 3.10 to 3.14 on Linux (x86-64 and ARM), macOS and Windows; embreex has none for Linux on
ARM. The kernel takes about 1 s to compile on first use and is then cached on disk.

On CUDA it uses nvdiffrast if that is installed (see `rasterizer`). nvdiffrast is optional, as its licence
allows research and evaluation only. Without it, CUDA tensors are rasterized on the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import Cameras


class Raster(NamedTuple):
    """The rasterization of a mesh in V views.

    Attributes:
        triangle: face index, int64 [V, H, W], -1 in the background. Row 0 is the top row.
        bary: perspective-correct barycentrics at pixel centres [V, H, W, 3], 0 in the background;
            differentiable in the vertices (for a fixed triangle) if they require gradients.
        depth: view depth [V, H, W], 0 in the background; differentiable like `bary`.
    """

    triangle: Tensor
    bary: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Foreground mask, bool [V, H, W]."""
        return self.triangle >= 0


@lru_cache(maxsize=1)
def _nvdiffrast() -> Any | None:
    """Return the module nvdiffrast.torch, or None if it is not installed or fails to load."""
    try:
        import nvdiffrast.torch as module
    except (ImportError, OSError, RuntimeError):
        return None
    return module


@lru_cache(maxsize=8)
def _context(device: torch.device) -> Any | None:
    """Return nvdiffrast's context for a CUDA device, or None if it is unavailable."""
    module = _nvdiffrast()
    try:
        return module and module.RasterizeCudaContext(device=device)
    except RuntimeError:
        return None


def rasterizer(device: torch.device | str) -> str:
    """Return the backend for tensors on a device: "nvdiffrast" or "numba"."""
    device = torch.device(device)
    return "nvdiffrast" if device.type == "cuda" and _context(device) is not None else "numba"


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Raster:
    """Rasterize a mesh at pixel centres, without backface culling.

    Args:
        vertices: world positions [N, 3], any floating dtype, any device.
        faces: vertex indices, int64 [F, 3].
        cameras: V cameras on the same device.
        height, width: image size in pixels.

    Returns:
        triangle [V, H, W], bary [V, H, W, 3] and depth [V, H, W], in the vertices' dtype.
    """
    with torch.no_grad():
        if rasterizer(vertices.device) == "nvdiffrast":
            raster = _rasterize_nvdiffrast(vertices, faces, cameras, height, width)
        else:
            raster = _rasterize_numba(vertices, faces, cameras, height, width)
    if not (torch.is_grad_enabled() and (vertices.requires_grad or cameras.c2w.requires_grad)):
        return raster
    return Raster(raster.triangle, *barycentrics(vertices, faces, cameras, raster.triangle))


def _rasterize_numba(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Raster:
    # Double precision for any input: shared edges of triangles must be bit-identical.
    exact = Cameras(cameras.c2w.cpu().double(), cameras.fovy.cpu().double(), cameras.near, cameras.far)
    pixels = exact.to_pixels(vertices.detach().cpu().double(), height, width).contiguous()  # [V, N, 3]
    indices = faces.cpu().long().contiguous()
    triangle, bary, depth = zbuffer.draw(
        pixels.numpy(), indices.numpy(), exact.near, height, width, torch.get_num_threads()
    )
    like = {"device": vertices.device, "dtype": vertices.dtype}
    return Raster(
        torch.from_numpy(triangle).to(vertices.device),
        torch.from_numpy(bary).to(**like),
        torch.from_numpy(depth).to(**like),
    )


def _rasterize_nvdiffrast(
    vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int
) -> Raster:
    module = _nvdiffrast()
    assert module is not None
    # y points down in clip space, so nvdiffrast's first row is the top row.
    matrices = cameras.mvp(width / height).float()  # [V, 4, 4]
    corners = torch.nn.functional.pad(vertices.float(), (0, 1), value=1.0)  # [N, 4]
    clip = (corners[None] @ matrices.mT).contiguous()  # [V, N, 4]
    # Channels: u, v (the weights of corners 0 and 1), z/w, triangle + 1.
    output, _ = module.rasterize(
        _context(vertices.device), clip, faces.int().contiguous(), resolution=[height, width], grad_db=False
    )  # [V, H, W, 4]
    triangle = output[..., 3].long() - 1
    u, v = output[..., 0], output[..., 1]
    bary = torch.stack((u, v, 1 - u - v), dim=-1) * (triangle >= 0)[..., None]
    bary = bary.to(vertices.dtype)
    depths = -cameras.to_camera(vertices)[..., 2]  # [V, N]
    depth = torch.zeros_like(u, dtype=vertices.dtype)
    view, row, column = torch.nonzero(triangle >= 0, as_tuple=True)  # [P] each
    corner = depths[view[:, None], faces[triangle[view, row, column]]]  # [P, 3]
    depth[view, row, column] = (corner * bary[view, row, column]).sum(-1)
    return Raster(triangle, bary, depth)


def barycentrics(
    vertices: Tensor, faces: Tensor, cameras: Cameras, triangle: Tensor
) -> tuple[Tensor, Tensor]:
    """Intersect the rays of pixel centres with the planes of given triangles; differentiable, in torch.

    Args:
        vertices: world positions [N, 3].
        faces: vertex indices [F, 3].
        cameras: V cameras.
        triangle: face index of each pixel [V, H, W], -1 in the background.

    Returns:
        perspective-correct barycentrics [V, H, W, 3] and view depth [V, H, W]; 0 in the background.
    """
    _, height, width = triangle.shape
    pixels = cameras.to_pixels(vertices, height, width)  # [V, N, 3]
    view, row, column = torch.nonzero(triangle >= 0, as_tuple=True)  # [P] each
    corner = pixels[view[:, None], faces[triangle[view, row, column]]]  # [P, 3, 3]
    centre = torch.stack((column, row), dim=-1).to(vertices.dtype) + 0.5  # [P, 2]
    # Corners relative to the pixel (sheared along w), to avoid cancellation in single precision.
    w = corner[..., 2]  # [P, 3]
    x, y = (corner[..., :2] - centre[:, None] * w[..., None]).unbind(-1)  # [P, 3] each
    area = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)  # [P, 3]
    weights = area / area.sum(1, keepdim=True)
    bary = vertices.new_zeros(*triangle.shape, 3).index_put((view, row, column), weights)
    depth = vertices.new_zeros(triangle.shape).index_put((view, row, column), (weights * w).sum(1))
    return bary, depth


def interpolate(attributes: Tensor, faces: Tensor, triangle: Tensor, bary: Tensor) -> Tensor:
    """Interpolate vertex attributes at each pixel; differentiable in attributes and barycentrics.

    Args:
        attributes: vertex attributes [N, C].
        faces: vertex indices [F, 3].
        triangle: face index of each pixel [V, H, W], -1 in the background.
        bary: barycentrics [V, H, W, 3].

    Returns:
        [V, H, W, C], 0 in the background.
    """
    covered = torch.nonzero(triangle >= 0, as_tuple=True)  # 3 x [P]
    corner = attributes[faces[triangle[covered]]]  # [P, 3, C]
    values = (corner * bary[covered][..., None].to(attributes.dtype)).sum(1)  # [P, C]
    return attributes.new_zeros(*triangle.shape, attributes.shape[1]).index_put(covered, values)
