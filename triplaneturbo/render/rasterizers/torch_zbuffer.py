"""Rasterizer backend for CUDA without nvdiffrast: the z-buffer of zbuffer.py in plain torch.

Each (face, pixel) pair of the faces' bounding boxes is tested; the nearest face of a pixel, and the first one
among equally near faces, is found by scatter reductions, whose result does not depend on their order. It
computes in double precision, as the kernel does. It runs on any device: the tests compare both on the CPU. No
GPU has run it yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizers.base import Fragments

PAIRS_PER_CHUNK = 1 << 19  # (face, pixel) pairs per chunk: 0.15 GB in double precision


def supports(device: torch.device) -> bool:
    """Return whether the device is a CUDA device; on a CPU, the kernel is faster."""
    return device.type == "cuda"


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Fragments:
    """See `Rasterizer`."""
    exact = Cameras(cameras.c2w.double(), cameras.fovy.double(), cameras.near, cameras.far)
    pixels = exact.to_pixels(vertices.detach().double(), height, width)  # [V, N, 3]
    views = [_draw(view[faces], exact.near, height, width) for view in pixels]
    triangle, bary, depth = (torch.stack(parts) for parts in zip(*views, strict=True))
    return Fragments(triangle, bary.to(vertices.dtype), depth.to(vertices.dtype))


def _draw(corners: Tensor, near: float, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rasterize faces [F, 3, 3] in homogeneous pixel coordinates into one view.

    Returns:
        triangle [H, W], barycentrics [H, W, 3] and depth [H, W]; see `Fragments`.
    """
    count, size = len(corners), height * width
    low, extent = _boxes(corners, near, height, width)  # [F, 2] each: rows, columns
    edges, volume = _edge_functions(corners)  # [F, 3, 3], [F]
    pairs = extent.prod(1) * (volume != 0)
    ends = pairs.cumsum(0)
    closest = corners.new_zeros(size)  # 1 / depth
    owner = torch.full((size,), count, device=corners.device)
    total = int(ends[-1]) if count else 0
    for first in range(0, total, PAIRS_PER_CHUNK):
        pair = torch.arange(first, min(first + PAIRS_PER_CHUNK, total), device=corners.device)
        face = torch.searchsorted(ends, pair, right=True)
        rank = pair - (ends - pairs)[face]
        row, column = low[face, 0] + rank // extent[face, 1], low[face, 1] + rank % extent[face, 1]
        weights = _weights(edges[face], volume[face], row, column)  # [P, 3]
        closeness = weights.sum(1) / volume[face].abs()
        seen = (weights >= 0).all(1) & (closeness * near < 1)
        closeness, pixel = torch.where(seen, closeness, 0), row * width + column
        nearest = closest.scatter_reduce(0, pixel, closeness, "amax")
        wins = seen & (closeness == nearest[pixel]) & (closeness > closest[pixel])
        of_these = torch.full_like(owner, count)
        of_these = of_these.scatter_reduce(0, pixel, torch.where(wins, face, count), "amin")
        owner = torch.where(nearest > closest, of_these, owner)
        closest = nearest
    pixel = (owner < count).nonzero()[:, 0]
    face = owner[pixel]
    weights = _weights(edges[face], volume[face], pixel // width, pixel % width)
    bary, depth = corners.new_zeros(size, 3), corners.new_zeros(size)
    bary[pixel] = weights / weights.sum(1, keepdim=True)
    depth[pixel] = 1 / closest[pixel]
    triangle = torch.where(owner < count, owner, -1)
    return triangle.view(height, width), bary.view(height, width, 3), depth.view(height, width)


def _boxes(corners: Tensor, near: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the first row and column [F, 2] and the numbers of rows and columns [F, 2] to test.

    They are 0 for faces behind the near plane; a face that crosses it may be anywhere in the image.
    """
    x, y, w = corners.unbind(-1)  # [F, 3] each
    at = torch.stack((y / w, x / w), -1)  # [F, 3, 2]
    limit = torch.stack((torch.full_like(at[:, 0, 0], height), torch.full_like(at[:, 0, 0], width)), -1)
    low = (at.amin(1) - 0.5).ceil().clamp_min(0)
    high = torch.minimum((at.amax(1) - 0.5).floor(), limit - 1)
    in_front = (w > near).all(1, keepdim=True)
    low = torch.where(in_front, low, 0)
    extent = (torch.where(in_front, high, limit - 1) - low + 1).clamp_min(0)
    return low.long(), (extent * (w > near).any(1, keepdim=True)).long()


def _edge_functions(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edge functions (a, b, c) opposite each corner [F, 3, 3] and the volumes [F]."""
    edges = [_cross(corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]) for k in range(3)]
    (a, b, c), (x, y, w) = edges[0].unbind(1), corners[:, 0].unbind(1)
    return torch.stack(edges, 1), a * x + b * y + c * w


def _cross(p: Tensor, q: Tensor) -> Tensor:
    """Cross products [F, 3] with the terms of zbuffer.py, so that the rounding is the same."""
    (px, py, pw), (qx, qy, qw) = p.unbind(1), q.unbind(1)
    return torch.stack((py * qw - pw * qy, pw * qx - px * qw, px * qy - py * qx), 1)


def _weights(edges: Tensor, volume: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Evaluate the edge functions [P, 3, 3] at pixel centres [P]: [P, 3], all positive inside the face."""
    x, y = column[:, None] + 0.5, row[:, None] + 0.5
    a, b, c = edges.unbind(-1)  # [P, 3]
    return torch.where(volume > 0, 1.0, -1.0).to(edges)[:, None] * (a * x + b * y + c)
