"""Mesh rasterizer: the visible triangle and barycentrics of each pixel, and attribute interpolation in torch.

The backends are in `rasterizers/`: on CUDA, nvdiffrast if that is installed, else plain torch; elsewhere a
numba kernel on the CPU. `rasterizer` names the backend that is used for a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizers.base import Fragments
from triplaneturbo.render.rasterizers.registry import choose_rasterizer


def rasterizer(device: torch.device | str) -> str:
    """Return the name of the backend for tensors on a device: a key of `registry.RASTERIZERS`."""
    return choose_rasterizer(torch.device(device)).name


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Fragments:
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
        backend = choose_rasterizer(vertices.device)
        fragments = backend.rasterize(vertices, faces, cameras, height, width)
    if not (torch.is_grad_enabled() and (vertices.requires_grad or cameras.c2w.requires_grad)):
        return fragments
    return Fragments(fragments.triangle, *barycentrics(vertices, faces, cameras, fragments.triangle))


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
