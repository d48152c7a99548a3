"""Slow twin of the Gaussian rasterizer, with the arguments and the conventions of gsplat.rasterization.

Every pixel looks at every Gaussian, in a loop over the Gaussians from front to back; no tiles, no matrix
of polynomials, no hand-written gradient. Cameras are OpenCV world-to-camera matrices and intrinsics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_ALPHA, MIN_ALPHA = 0.999, 1 / 255


def rotation(quaternion: Tensor) -> Tensor:
    """The rotation matrix of one quaternion, by rotating the axes: v + 2 u x (u x v + w v)."""
    quaternion = quaternion / quaternion.norm()
    w, u = quaternion[0], quaternion[1:]
    columns = []
    for axis in torch.eye(3, dtype=u.dtype):
        columns.append(axis + 2 * torch.linalg.cross(u, torch.linalg.cross(u, axis) + w * axis))
    return torch.stack(columns, dim=1)


def rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor,
    Ks: Tensor, width: int, height: int, near_plane: float = 0.01, far_plane: float = 1e10,
    eps2d: float = 0.3, packed: bool = False, render_mode: str = "RGB+D",
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """Return (colours and depth) [V, H, W, C + 1], opacity [V, H, W, 1] and {"means2d", "radii"}."""
    assert (packed, render_mode) == (False, "RGB+D")
    images, opacity, radii = [], [], []
    points = torch.einsum("vij,nj->vni", viewmats[:, :3, :3], means) + viewmats[:, None, :3, 3]
    homogeneous = torch.einsum("vij,vnj->vni", Ks, points)
    means2d = homogeneous[..., :2] / homogeneous[..., 2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=means.dtype) + 0.5, torch.arange(width, dtype=means.dtype) + 0.5,
        indexing="ij",
    )  # fmt: skip
    for v in range(len(viewmats)):
        turn = viewmats[v, :3, :3]
        fx, fy = Ks[v, 0, 0], Ks[v, 1, 1]
        image = means.new_zeros(height, width, colors.shape[-1] + 1)
        left = means.new_ones(height, width)  # transmittance
        depths = points[v, :, 2]
        seen = torch.zeros(len(means), dtype=torch.bool)
        for i in torch.argsort(depths.detach(), stable=True).tolist():
            if not near_plane < depths[i] < far_plane:
                continue
            px, py, pz = points[v, i]
            # The Jacobian of the projection, at most 15 % of the image's width beyond its border.
            limit_x, limit_y = 1.3 * width / 2 / fx, 1.3 * height / 2 / fy
            tx, ty = (px / pz).clamp(-limit_x, limit_x), (py / pz).clamp(-limit_y, limit_y)
            zero = torch.zeros(())
            jacobian = torch.stack(
                [fx / pz, zero, -fx * tx / pz, zero, fy / pz, -fy * ty / pz]
            ).reshape(2, 3)  # fmt: skip
            spread = rotation(quats[i]) @ torch.diag(scales[i])
            covariance = jacobian @ turn @ spread @ spread.T @ turn.T @ jacobian.T
            covariance = covariance + eps2d * torch.eye(2, dtype=means.dtype)
            offset = torch.stack((x, y), dim=-1) - means2d[v, i]  # [H, W, 2]
            distance = torch.einsum("hwi,ij,hwj->hw", offset, torch.linalg.inv(covariance), offset)
            alpha = (opacities[i] * (-0.5 * distance).exp()).clamp(max=MAX_ALPHA)
            alpha = torch.where(alpha < MIN_ALPHA, 0, alpha)
            color = colors[v, i] if colors.ndim == 3 else colors[i]
            value = torch.cat((color, depths[i : i + 1]))
            image = image + (left * alpha)[..., None] * value
            left = left * (1 - alpha)
            seen[i] = bool((alpha > 0).any())
        images.append(image)
        opacity.append(1 - left[..., None])
        radii.append(seen[:, None].int().expand(-1, 2))
    return torch.stack(images), torch.stack(opacity), {"means2d": means2d, "radii": torch.stack(radii)}
