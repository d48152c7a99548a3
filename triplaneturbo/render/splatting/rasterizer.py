"""Rasterizer of 3D Gaussians: colour, opacity, depth and normals, on any device (Kerbl et al. 2023).

In torch, images are composited in tiles (tiles.py, compositing.py). On CUDA, gsplat does the same if it
is installed with its compiled kernels (gsplat_backend.py); it also stops at a transmittance of 1e-4, so
that the images differ by up to that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.splatting import compositing, gsplat_backend, tiles
from triplaneturbo.render.splatting.projection import project
from triplaneturbo.utils import quaternions as rotations

TILE = 8  # pixels
_PAIRS = 2**13  # (tile, Gaussian) pairs composited at once: 2 MB per array in single precision


class SplatRendering(NamedTuple):
    """N Gaussians rendered in V views; row 0 is the top row.

    Attributes:
        rgb: [V, H, W, 3], composited on the background.
        opacity: [V, H, W], in [0, 1].
        depth: mean depth along the viewing axis [V, H, W]; 0 where the opacity is 0.
        normal: sum of weights times unit world-space normals [V, H, W, 3]. The normal of a Gaussian is
            its shortest axis, on the camera's side.
        means2d: projected means in pixels [V, N, 2]. After `retain_grad()` and a backward pass, its
            gradient drives densification.
        visible: whether the Gaussian's bounding box overlaps the image, bool [V, N].
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normal: Tensor
    means2d: Tensor
    visible: Tensor


def rasterize_gaussians(
    means: Tensor,
    quaternions: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
    height: int,
    width: int,
    background: Tensor | None = None,
) -> SplatRendering:
    """Render 3D Gaussians; differentiable in all their parameters and in the background.

    The order of the Gaussians does not matter, except between equal depths. In each view they are
    composited by the depth of their means.

    Args:
        means: world positions [N, 3], any floating dtype, any device.
        quaternions: rotations (w, x, y, z) of any non-zero length [N, 4].
        scales: standard deviations along the rotated axes, in world units [N, 3].
        opacities: opacities at the means, in [0, 1] [N].
        colors: [N, 3].
        cameras: V cameras on the same device. Gaussians with means beyond the clipping planes vanish.
        height, width: size of the image in pixels.
        background: colour [3] or [V, 3]; black by default.
    """
    normals = _normals(means, quaternions, scales, cameras)
    if gsplat_backend.available(means):
        parts = gsplat_backend.render(
            means, quaternions, scales, opacities, colors, normals, cameras, height, width
        )
    else:
        parts = _render(means, quaternions, scales, opacities, colors, normals, cameras, height, width)
    image, means2d, visible = parts
    rgb, normal, distance, opacity = image.split((3, 3, 1, 1), dim=-1)
    if background is not None:
        rgb = rgb + (1 - opacity) * background.reshape(-1, 1, 1, 3).to(rgb)
    opacity, distance = opacity[..., 0], distance[..., 0]
    covered = opacity > 0
    depth = torch.where(covered, distance / torch.where(covered, opacity, 1), 0)
    return SplatRendering(rgb, opacity, depth, normal, means2d, visible)


def _normals(means: Tensor, quaternions: Tensor, scales: Tensor, cameras: Cameras) -> Tensor:
    """Return the shortest axes, on the camera's side [V, N, 3]; differentiable in quaternions."""
    shortest = F.one_hot(scales.detach().argmin(1), 3).to(means)  # [N, 3]
    normals = (rotations.to_matrices(quaternions) @ shortest[..., None])[..., 0]  # [N, 3]
    toward = cameras.positions[:, None] - means.detach()  # [V, N, 3]
    facing = (normals.detach() * toward).sum(-1, keepdim=True) >= 0
    return torch.where(facing, normals, -normals)


def _render(
    means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    normals: Tensor, cameras: Cameras, height: int, width: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Render in torch.

    Returns:
        sums of weights times (rgb, normal, depth, 1) [V, H, W, 8], means2d [V, N, 2] and visible [V, N].
    """
    views, count = len(cameras), len(means)
    seen = project(means, quaternions, scales, opacities, cameras, height, width)
    lists = tiles.assign(seen.means2d, seen.reach, seen.depths, height, width, TILE)
    log_opacities = opacities.clamp_min(1e-10).log()
    columns = (
        seen.means2d,  # 0, 1
        seen.conics,  # 2, 3, 4
        log_opacities[None, :, None].expand(views, -1, 1),  # 5
        colors.expand(views, -1, 3),
        normals,
        seen.depths[..., None],
        torch.ones_like(seen.depths)[..., None],
    )
    table = torch.cat(columns, dim=-1).flatten(0, 1)  # [V * N, 14]
    # The last row is padding: index -1.
    padding = table.new_zeros(1, table.shape[1])
    padding[0, 5] = compositing.PADDING
    table = torch.cat((table, padding))
    pixels = compositing.monomials(TILE, table)  # [P, 6]

    drawn = []
    for group, members in lists.chunks(_PAIRS):
        tile = lists.tiles[group]
        centre = torch.stack((tile % lists.columns, tile // lists.columns % lists.rows), dim=-1)
        centre = (centre.to(table) + 0.5) * TILE  # [t, 2]
        rows = table.index_select(0, (members % len(table)).flatten()).unflatten(0, members.shape)
        offsets, conics, logs, features = rows.split((2, 3, 1, 8), dim=-1)  # [t, K, ...]
        coefficients = compositing.polynomials(offsets - centre[:, None], conics, logs[..., 0])
        drawn.append(compositing.composite(coefficients, features, pixels))  # [t, P, 8]
    image = table.new_zeros(views * lists.rows * lists.columns, TILE * TILE, 8)
    # Without any Gaussian in sight: black, with gradients of 0.
    image = image.index_copy(0, lists.tiles, torch.cat(drawn)) if drawn else image + 0 * table.sum()
    image = image.reshape(views, lists.rows, lists.columns, TILE, TILE, 8).transpose(2, 3)
    image = image.reshape(views, lists.rows * TILE, lists.columns * TILE, 8)[:, :height, :width]
    visible = torch.zeros(views * count, dtype=torch.bool, device=means.device)
    visible[lists.members] = True
    return image, seen.means2d, visible.reshape(views, count)
