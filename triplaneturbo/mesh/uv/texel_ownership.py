"""Nearest face of each texel of an atlas, in plain torch, for GPUs (see atlas.py for the CPU kernel)."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 1 << 21  # (face, texel) pairs per chunk


def texel_owners(points: Tensor, faces: Tensor, size: int, reach: float) -> tuple[Tensor, Tensor]:
    """Assign each texel the face nearest to its centre, the first one among equally near faces.

    Args:
        points: positions in the image, in texels, float64 [V, 2].
        faces: [F, 3].
        size: texels per side.
        reach: texels farther than this from every face have no owner.

    Returns:
        the face of each texel, -1 where there is none, int64 [size^2]; and the barycentric coordinates of the
        point of that face nearest to the texel's centre, float32 [size^2, 3].
    """
    corners = points[faces]  # [F, 3, 2]
    low = (corners.amin(1) - reach).floor().long().clamp(0, size)  # [F, 2]
    high = ((corners.amax(1) + reach).floor().long() + 1).clamp(0, size)
    wide, tall = (high - low).unbind(1)
    count = wide * tall  # texels near each face
    ends = count.cumsum(0)
    far = points.new_full((size * size,), reach**2)
    owner = torch.full((size * size,), len(faces), device=points.device)
    total = int(ends[-1])
    for first in range(0, total, PAIRS_PER_CHUNK):
        pair = torch.arange(first, min(first + PAIRS_PER_CHUNK, total), device=points.device)
        face = torch.searchsorted(ends, pair, right=True)
        rank = pair - (ends - count)[face]
        down, across = rank // wide[face], rank % wide[face]
        texel = (low[face, 1] + down) * size + low[face, 0] + across
        distance, _ = _nearest_on_triangle(corners[face], _centres(texel, size))
        nearest = far.scatter_reduce(0, texel, distance, "amin")
        wins = (distance < far[texel]) & (distance == nearest[texel])
        of_these = torch.full_like(owner, len(faces))
        of_these = of_these.scatter_reduce(0, texel, torch.where(wins, face, len(faces)), "amin")
        owner = torch.where(nearest < far, of_these, owner)
        far = nearest
    owned = owner < len(faces)
    bary = points.new_zeros(size * size, 3, dtype=torch.float32)
    texel = owned.nonzero()[:, 0]
    bary[texel] = _nearest_on_triangle(corners[owner[texel]], _centres(texel, size))[1].float()
    return torch.where(owned, owner, -1), bary


def _centres(texel: Tensor, size: int) -> Tensor:
    return torch.stack((texel % size, texel // size), 1) + 0.5


def _nearest_on_triangle(corners: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the point of each triangle [N, 3, 2] nearest to each of points [N, 2].

    Returns:
        squared distances [N], and the nearest points' barycentric coordinates [N, 3].
    """
    a, b, c = corners.unbind(1)
    turn = _cross_2d(b - a, c - a)
    second = _cross_2d(points - a, c - a) / turn  # NaN for a face without area: not inside
    third = _cross_2d(b - a, points - a) / turn
    inside = (turn != 0) & (second >= 0) & (third >= 0) & (second + third <= 1)
    shares, distances = zip(
        *(_nearest_on_segment(p, q, points) for p, q in ((a, b), (b, c), (c, a))), strict=True
    )
    far, side = torch.stack(distances, 1).min(1)
    none = torch.zeros_like(turn)
    (ab, bc, ca) = shares
    on_sides = torch.stack(
        (
            torch.stack((1 - ab, ab, none), 1),
            torch.stack((none, 1 - bc, bc), 1),
            torch.stack((ca, none, 1 - ca), 1),
        ),
        1,
    )  # [N, 3 sides, 3]
    on_side = on_sides.gather(1, side[:, None, None].expand(-1, 1, 3))[:, 0]
    within = torch.stack((1 - second - third, second, third), 1)
    return torch.where(inside, none, far), torch.where(inside[:, None], within, on_side)


def _cross_2d(p: Tensor, q: Tensor) -> Tensor:
    return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]


def _nearest_on_segment(p: Tensor, q: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return parameters in [0, 1] of the points of segments p q nearest to each point, squared distances."""
    direction = q - p
    length = (direction * direction).sum(1)
    share = torch.where(length > 0, ((points - p) * direction).sum(1) / length, 0).clamp(0, 1)
    rest = p + share[:, None] * direction - points
    return share, (rest * rest).sum(1)
