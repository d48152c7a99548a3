"""Which point of the surface each texel of an atlas belongs to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.uv.dilation import nearest_covered
from triplaneturbo.mesh.uv.texel_ownership import texel_owners
from triplaneturbo.utils.kernels import kernel

# Texels this near to a face belong to it too: bilinear filtering at a chart's edge reads them, and the tip of
# a thin face may hold no texel's centre at all.
GUTTER = 2.0


class Atlas(NamedTuple):
    """The texels that have a point on the surface, and where the others look.

    Attributes:
        texels: flat indices row * size + column, int64 [N].
        face: the face of each [N].
        bary: the point's barycentrics [N, 3], float32.
        nearest: for every texel the nearest of `texels` (itself if it is one), flat, int32 [size, size].
    """

    texels: Tensor
    face: Tensor
    bary: Tensor
    nearest: Tensor


def rasterize_atlas(uv: Tensor, faces: Tensor, size: int) -> Atlas:
    """Give each texel within GUTTER of a face the point of the nearest face that is nearest to its centre.

    Args:
        uv: [V, 2], (0, 0) at the top left corner of the image. On a CUDA device all is done there.
        faces: [F, 3], at least one.
        size: texels a side.
    """
    if uv.device.type == "cuda":
        owner, bary = texel_owners(uv.detach().double() * size, faces, size, GUTTER)
    else:
        face = np.full((size, size), -1, np.int32)
        weights = np.zeros((size, size, 3), np.float32)
        far = np.full((size, size), GUTTER**2)
        _claim(uv.detach().cpu().double().numpy() * size, faces.cpu().numpy(), face, weights, far)
        owner = torch.from_numpy(face).long().flatten()
        bary = torch.from_numpy(weights).view(-1, 3)
    if (owner < 0).all():  # nothing lies within the image: one texel stands for all
        owner[0], bary[0] = 0, 1 / 3
    covered = (owner >= 0).view(size, size)
    texels = covered.flatten().nonzero()[:, 0].to(uv.device)
    nearest = nearest_covered(covered).to(uv.device)
    return Atlas(texels, owner.to(uv.device)[texels], bary.to(uv.device)[texels], nearest)


@kernel
def _claim(points, faces, owner, bary, far):
    """Let every face [F, 3] of points [V, 2], in texels, claim the texels that no face is nearer to yet."""
    size = owner.shape[0]
    reach = np.sqrt(far[0, 0])
    for face in range(faces.shape[0]):
        ax, ay = points[faces[face, 0]]
        bx, by = points[faces[face, 1]]
        cx, cy = points[faces[face, 2]]
        left, right = min(ax, bx, cx) - reach, max(ax, bx, cx) + reach
        top, bottom = min(ay, by, cy) - reach, max(ay, by, cy) + reach
        if not (left <= size and right >= 0 and top <= size and bottom >= 0):
            continue
        turn = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        for row in range(max(int(top), 0), min(int(bottom) + 1, size)):
            y = row + 0.5
            for column in range(max(int(left), 0), min(int(right) + 1, size)):
                if far[row, column] == 0.0:
                    continue
                x = column + 0.5
                if turn != 0.0:
                    b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / turn
                    c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / turn
                    if b >= 0.0 and c >= 0.0 and b + c <= 1.0:
                        far[row, column] = 0.0
                        owner[row, column] = face
                        bary[row, column, 0], bary[row, column, 1], bary[row, column, 2] = 1 - b - c, b, c
                        continue
                # Outside: the nearest point lies on one of the three sides.
                ab, ab_far = _along(ax, ay, bx, by, x, y)
                bc, bc_far = _along(bx, by, cx, cy, x, y)
                ca, ca_far = _along(cx, cy, ax, ay, x, y)
                least = min(ab_far, bc_far, ca_far)
                if not least < far[row, column]:
                    continue
                far[row, column] = least
                owner[row, column] = face
                if least == ab_far:
                    bary[row, column, 0], bary[row, column, 1], bary[row, column, 2] = 1 - ab, ab, 0
                elif least == bc_far:
                    bary[row, column, 0], bary[row, column, 1], bary[row, column, 2] = 0, 1 - bc, bc
                else:
                    bary[row, column, 0], bary[row, column, 1], bary[row, column, 2] = ca, 0, 1 - ca


@kernel
def _along(px, py, qx, qy, x, y):
    """How far along the segment p q, in [0, 1], its point nearest to (x, y) is, and that distance squared."""
    dx, dy = qx - px, qy - py
    length = dx * dx + dy * dy
    share = ((x - px) * dx + (y - py) * dy) / length if length > 0.0 else 0.0
    share = min(max(share, 0.0), 1.0)
    ex, ey = px + share * dx - x, py + share * dy - y
    return share, ex * ex + ey * ey
