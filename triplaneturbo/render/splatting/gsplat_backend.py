"""gsplat (Apache-2.0) as the rasterizer on CUDA.

It is used only where a wheel with compiled kernels is installed; the pure wheel of PyPI, which compiles
on first use, is ignored. No CUDA device has run this module yet: its conventions are tested against a
double of gsplat.rasterization.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.splatting.projection import BLUR


@lru_cache(maxsize=1)
def _gsplat() -> Any | None:
    """Return the module gsplat, or None if it or its compiled kernels are missing or fail to load."""
    try:
        if importlib.util.find_spec("gsplat.csrc") is None:
            return None
        import gsplat as module
    except (ImportError, OSError, RuntimeError):
        return None
    return module


def available(means: Tensor) -> bool:
    """Return whether gsplat renders Gaussians with these means: float32 on CUDA, kernels installed."""
    return means.is_cuda and means.dtype == torch.float32 and _gsplat() is not None


def opencv_cameras(cameras: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return OpenCV world-to-camera matrices [V, 4, 4] (y down, z forward) and intrinsics [V, 3, 3]."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, 1:3] *= -1
    focal = 0.5 * height / torch.tan(cameras.fovy / 2)  # [V]
    intrinsics = c2w.new_zeros(len(cameras), 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    return torch.linalg.inv(c2w), intrinsics


def render(
    means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    normals: Tensor, cameras: Cameras, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Render with gsplat; arguments as of `rasterize_gaussians`, and normals [V, N, 3].

    Returns:
        sums of weights times (rgb, normal, depth, 1) [V, H, W, 8], means2d [V, N, 2] and visible [V, N].
    """
    module = _gsplat()
    assert module is not None
    w2c, intrinsics = opencv_cameras(cameras, height, width)
    features = torch.cat((colors.expand(len(cameras), -1, 3), normals), dim=-1)  # [V, N, 6]
    image, opacity, info = module.rasterization(
        means, quaternions, scales, opacities, features, w2c, intrinsics, width, height,
        near_plane=cameras.near, far_plane=cameras.far, eps2d=BLUR, packed=False, render_mode="RGB+D",
    )  # [V, H, W, 7], [V, H, W, 1]  # fmt: skip
    radii = info["radii"]  # [V, N, 2], or [V, N] before gsplat 1.5
    visible = (radii > 0).all(-1) if radii.ndim == 3 else radii > 0
    return torch.cat((image, opacity), dim=-1), info["means2d"], visible
