"""EWA projection of 3D Gaussians to 2D Gaussians in the image (Zwicker et al. 2001)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.utils import quaternions as rotations

BLUR = 0.3
"""Variance in square pixels added to each image covariance: a low-pass filter of about a pixel."""
MIN_ALPHA = 1 / 255
"""Fainter contributions are dropped."""
_MARGIN = 1.3  # the Jacobian is evaluated at most this far from the axis, relative to the image's border


class ProjectedGaussians(NamedTuple):
    """N Gaussians in V views.

    Attributes:
        means2d: positions in pixels, x right and y down [V, N, 2].
        conics: inverse image covariances as (xx, xy, yy) [V, N, 3].
        depths: view depths of the means [V, N].
        reach: half the width and height in pixels [V, N, 2] of the box in which the opacity is at least
            MIN_ALPHA; 0 where the Gaussian is too faint or out of the depth range. Without gradient.
    """

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    reach: Tensor


def project(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    cameras: Cameras,
    height: int,
    width: int,
) -> ProjectedGaussians:
    """Project Gaussians; differentiable in means, quaternions and scales.

    Args:
        means: world positions [N, 3].
        quaternions: (w, x, y, z) of any non-zero length [N, 4].
        scales: standard deviations [N, 3].
        opacities: opacities at the means [N]; they only affect `reach`.
        cameras: V cameras.
        height, width: size of the image in pixels.
    """
    right, up, back = cameras.to_camera(means).unbind(-1)  # [V, N] each
    depths = -back
    inside = (depths > cameras.near) & (depths < cameras.far)
    z = torch.where(inside, depths, 1)  # no division by zero for Gaussians that are culled
    focal = 0.5 * height / torch.tan(cameras.fovy / 2)[:, None]  # [V, 1]
    x, y = right / z, -up / z  # image plane at depth 1, y down
    means2d = torch.stack((width / 2 + focal * x, height / 2 + focal * y), dim=-1)  # [V, N, 2]

    # Rows of the Jacobian of (x, y) in pixels, in camera axes right, up, back. Far outside the image the
    # linearization is invalid and would smear Gaussians over the image, so it is taken near the border.
    limit_x, limit_y = _MARGIN * width / 2 / focal, _MARGIN * height / 2 / focal  # [V, 1]
    x = torch.clamp(x, -limit_x, limit_x)
    y = torch.clamp(y, -limit_y, limit_y)
    zero = torch.zeros_like(z)
    slope = focal / z
    jacobian = torch.stack((slope, zero, slope * x, zero, -slope, slope * y), dim=-1)
    jacobian = jacobian.unflatten(-1, (2, 3))  # [V, N, 2, 3]

    axes = rotations.to_matrices(quaternions) * scales[:, None]  # [N, 3, 3]
    to_view = cameras.c2w[:, None, :3, :3].mT  # [V, 1, 3, 3]
    image_axes = jacobian @ to_view @ axes  # [V, N, 2, 3]
    horizontal, vertical = image_axes.unbind(-2)
    xx = horizontal.square().sum(-1) + BLUR  # [V, N]
    yy = vertical.square().sum(-1) + BLUR
    xy = (horizontal * vertical).sum(-1)
    # At least BLUR^2; the difference of the products could cancel below that in single precision.
    determinant = (xx * yy - xy * xy).clamp_min(BLUR**2)
    conics = torch.stack((yy, -xy, xx), dim=-1) / determinant[..., None]

    with torch.no_grad():
        # opacity * exp(-q / 2) >= MIN_ALPHA on the ellipse q <= 2 log(opacity / MIN_ALPHA).
        q = 2 * (opacities.clamp_min(MIN_ALPHA) / MIN_ALPHA).log() * inside  # [V, N]
        reach = (q[..., None] * torch.stack((xx, yy), dim=-1)).sqrt()
    return ProjectedGaussians(means2d, conics, depths, reach)
