"""The rasteriser: which triangle each pixel sees and where in it; attributes are then interpolated in torch.

On the CPU a small numba kernel draws (zbuffer.py). It was chosen over Embree (embreex wheel): both give the
same picture, but for a mesh of 80,000 faces at 512^2 the kernel takes about 9 ms and Embree about 80 ms (2
cores; `benchmarks/raster.py` prints both); numba has wheels for Python 3.10 to 3.14 on Linux (x86-64 and
ARM), macOS and Windows, embreex none for Linux on ARM. The price is about 1 s of compiling at the first call
ever, which numba then keeps on disk.

On CUDA, nvdiffrast stands behind the same function where it is installed (`rasterizer` says which one it is).
It is optional: its licence allows research and evaluation only. Without it CUDA tensors are drawn on the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import Cameras


class Raster(NamedTuple):
    """What V views of a mesh see.

    Attributes:
        triangle: face index, int64 [V, H, W], -1 where there is no surface. Row 0 is the top row.
        bary: perspective-correct barycentrics of the pixel centre [V, H, W, 3], 0 where no surface;
            differentiable in the vertices (for a fixed triangle) if these require a gradient.
        depth: distance along the view direction [V, H, W], 0 where no surface; differentiable likewise.
    """

    triangle: Tensor
    bary: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Where there is a surface, bool [V, H, W]."""
        return self.triangle >= 0


@lru_cache(maxsize=1)
def _nvdiffrast() -> Any | None:
    """The module nvdiffrast.torch, or None where it is not installed or does not load."""
    try:
        import nvdiffrast.torch as module
    except (ImportError, OSError, RuntimeError):
        return None
    return module


@lru_cache(maxsize=8)
def _context(device: torch.device) -> Any | None:
    """What nvdiffrast draws with on a CUDA device, or None where it cannot."""
    module = _nvdiffrast()
    try:
        return module and module.RasterizeCudaContext(device=device)
    except RuntimeError:
        return None


def rasterizer(device: torch.device | str) -> str:
    """Which rasteriser serves tensors of that device: "nvdiffrast" or "numba"."""
    device = torch.device(device)
    return "nvdiffrast" if device.type == "cuda" and _context(device) is not None else "numba"


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Raster:
    """Find what each pixel centre sees; both sides of a face count.

    Args:
        vertices: world positions [N, 3], any floating dtype, any device.
        faces: vertex indices, int64 [F, 3].
        cameras: V views, on the same device.
        height, width: the image, in pixels.

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
    # Double precision, whatever the input: edges that many triangles share must agree to the last bit.
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
    # In clip space y points down already, so that nvdiffrast's first row is the top one.
    matrices = cameras.mvp(width / height).float()  # [V, 4, 4]
    corners = torch.nn.functional.pad(vertices.float(), (0, 1), value=1.0)  # [N, 4]
    clip = (corners[None] @ matrices.mT).contiguous()  # [V, N, 4]
    # Its channels: u, v (the weights of corners 0 and 1), z/w, triangle + 1.
    drawn, _ = module.rasterize(
        _context(vertices.device), clip, faces.int().contiguous(), resolution=[height, width], grad_db=False
    )  # [V, H, W, 4]
    triangle = drawn[..., 3].long() - 1
    u, v = drawn[..., 0], drawn[..., 1]
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
    """Where the ray of each pixel centre meets its (given) triangle's plane: plain torch, differentiable.

    Args:
        vertices: world positions [N, 3].
        faces: vertex indices [F, 3].
        cameras: V views.
        triangle: face index of each pixel [V, H, W], -1 for none.

    Returns:
        perspective-correct barycentrics [V, H, W, 3] and view depth [V, H, W]; 0 where there is no triangle.
    """
    _, height, width = triangle.shape
    pixels = cameras.to_pixels(vertices, height, width)  # [V, N, 3]
    view, row, column = torch.nonzero(triangle >= 0, as_tuple=True)  # [P] each
    corner = pixels[view[:, None], faces[triangle[view, row, column]]]  # [P, 3, 3]
    centre = torch.stack((column, row), dim=-1).to(vertices.dtype) + 0.5  # [P, 2]
    # Corners relative to the pixel (shear along w), so that no large numbers cancel in single precision.
    w = corner[..., 2]  # [P, 3]
    x, y = (corner[..., :2] - centre[:, None] * w[..., None]).unbind(-1)  # [P, 3] each
    area = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)  # [P, 3]
    weights = area / area.sum(1, keepdim=True)
    bary = vertices.new_zeros(*triangle.shape, 3).index_put((view, row, column), weights)
    depth = vertices.new_zeros(triangle.shape).index_put((view, row, column), (weights * w).sum(1))
    return bary, depth


def interpolate(attributes: Tensor, faces: Tensor, triangle: Tensor, bary: Tensor) -> Tensor:
    """Vertex attributes at each pixel, differentiable in the attributes and the barycentrics.

    Args:
        attributes: [N, C].
        faces: vertex indices [F, 3].
        triangle: face index of each pixel [V, H, W], -1 for none.
        bary: barycentrics [V, H, W, 3].

    Returns:
        [V, H, W, C], 0 where there is no triangle.
    """
    covered = torch.nonzero(triangle >= 0, as_tuple=True)  # 3 x [P]
    corner = attributes[faces[triangle[covered]]]  # [P, 3, C]
    values = (corner * bary[covered][..., None].to(attributes.dtype)).sum(1)  # [P, C]
    return attributes.new_zeros(*triangle.shape, attributes.shape[1]).index_put(covered, values)
