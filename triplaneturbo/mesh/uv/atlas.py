"""UV rasterization: the surface point of each texel of an atlas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.uv.dilation import nearest_covered
from triplaneturbo.mesh.uv.texel_ownership import texel_owners
from triplaneturbo.utils.kernels import kernel
from triplaneturbo.utils.threads import in_threads

# Texels within this distance of a face belong to it, too: bilinear filtering reads them at a chart's edge,
# and a thin face may contain no texel centre.
GUTTER = 2.0


class Atlas(NamedTuple):
    """The surface points of an atlas' N covered texels, and the nearest covered texel of all others.

    Attributes:
        texels: flat indices row * size + column of the covered texels, int64 [N].
        face: face index of each [N].
        bary: barycentric coordinates of the surface point in that face, float32 [N, 3].
        nearest: flat index of the nearest covered texel, for every texel (its own if it is covered), int32
            [size, size].
    """

    texels: Tensor
    face: Tensor
    bary: Tensor
    nearest: Tensor


def rasterize_atlas(uv: Tensor, faces: Tensor, size: int) -> Atlas:
    """Map each texel within GUTTER of a face to the point of the nearest face that is closest to its centre.

    The work is done on the CUDA device of `uv`, or on the CPU.

    Args:
        uv: [V, 2], (0, 0) at the top left corner of the image.
        faces: [F, 3], at least one.
        size: texels per side.
    """
    if uv.device.type == "cuda":
        owner, bary = texel_owners(uv.detach().double() * size, faces, size, GUTTER)
    else:
        face = np.full((size, size), -1, np.int32)
        weights = np.zeros((size, size, 3), np.float32)
        points, corners = uv.detach().cpu().double().numpy() * size, faces.cpu().numpy()

        def rasterize_rows(first: int, last: int) -> None:
            _assign_nearest_faces(points, corners, first, GUTTER, face[first:last], weights[first:last])

        # Two bands of rows per thread: each visits all faces, but one may be emptier than the others.
        in_threads(rasterize_rows, size, -(-size // (2 * torch.get_num_threads())))
        owner, bary = torch.from_numpy(face).flatten(), torch.from_numpy(weights).view(-1, 3)
    if (owner < 0).all():  # no face is within the image: one texel represents them all
        owner[0], bary[0] = 0, 1 / 3
    covered = (owner >= 0).view(size, size)
    texels = covered.flatten().nonzero()[:, 0].to(uv.device)
    nearest = nearest_covered(covered).to(uv.device)
    return Atlas(texels, owner.to(uv.device)[texels].long(), bary.to(uv.device)[texels], nearest)


@kernel
def _assign_nearest_faces(points, faces, first, reach, owner, bary):
    """Assign each texel of some rows the nearest of faces [F, 3] with points [V, 2], in texels.

    Writes `owner` [R, W] and `bary` [R, W, 3] of the rows `first` to first + R of the image where a face is
    within reach.
    """
    rows, size = owner.shape
    far = np.full((rows, size), reach * reach)  # squared distances
    for face in range(faces.shape[0]):
        ax, ay = points[faces[face, 0]]
        bx, by = points[faces[face, 1]]
        cx, cy = points[faces[face, 2]]
        turn = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        left, right, top, bottom = _texels_around(ax, ay, bx, by, cx, cy, 0.0, first, rows, size)
        if turn == 0.0:
            continue
        per_area = 1.0 / turn
        for row in range(top, bottom):
            y = first + row + 0.5
            for column in range(left, right):
                x = column + 0.5
                b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) * per_area
                c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * per_area
                if b >= 0.0 and c >= 0.0 and b + c <= 1.0 and far[row, column] != 0.0:
                    far[row, column] = 0.0
                    owner[row, column] = face
                    bary[row, column, 0], bary[row, column, 1], bary[row, column, 2] = 1 - b - c, b, c
    # Texels that are in no face: the nearest point is on an edge of a face within reach.
    for face in range(faces.shape[0]):
        ax, ay = points[faces[face, 0]]
        bx, by = points[faces[face, 1]]
        cx, cy = points[faces[face, 2]]
        left, right, top, bottom = _texels_around(ax, ay, bx, by, cx, cy, reach, first, rows, size)
        for row in range(top, bottom):
            y = first + row + 0.5
            for column in range(left, right):
                if far[row, column] == 0.0:
                    continue
                x = column + 0.5
                ab, ab_far = _nearest_on_segment(ax, ay, bx, by, x, y)
                bc, bc_far = _nearest_on_segment(bx, by, cx, cy, x, y)
                ca, ca_far = _nearest_on_segment(cx, cy, ax, ay, x, y)
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
def _texels_around(ax, ay, bx, by, cx, cy, reach, first, rows, size):
    """Return the texels within reach of a face as ranges: left, right, top, bottom."""
    left, right = min(ax, bx, cx) - reach, max(ax, bx, cx) + reach
    top, bottom = min(ay, by, cy) - reach, max(ay, by, cy) + reach
    if not (left <= size and right >= 0 and top <= first + rows and bottom >= first):
        return 0, 0, 0, 0
    left, right = max(int(left), 0), min(int(right) + 1, size)
    return left, right, max(int(top) - first, 0), min(int(bottom) + 1 - first, rows)


@kernel
def _nearest_on_segment(px, py, qx, qy, x, y):
    """Return the parameter in [0, 1] of the point of segment p q nearest to (x, y), squared distance."""
    dx, dy = qx - px, qy - py
    length = dx * dx + dy * dy
    share = ((x - px) * dx + (y - py) * dy) / length if length > 0.0 else 0.0
    share = min(max(share, 0.0), 1.0)
    ex, ey = px + share * dx - x, py + share * dy - y
    return share, ex * ex + ey * ey
