"""Rasterizer backend on CUDA: nvdiffrast, if it is installed.

nvdiffrast is optional, as its licence allows research and evaluation only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizers.base import Fragments


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


def supports(device: torch.device) -> bool:
    """Return whether the device is a CUDA device and nvdiffrast works on it."""
    return device.type == "cuda" and _context(device) is not None


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Fragments:
    """See `Rasterizer`."""
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
    return Fragments(triangle, bary, depth)
