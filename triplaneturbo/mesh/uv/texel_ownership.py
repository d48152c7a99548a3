"""Which face each texel of an atlas belongs to, in plain torch, for a GPU; `atlas._claim` is the CPU's."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 1 << 21  # pairs of a face and a texel near it that are looked at at a time


def texel_owners(points: Tensor, faces: Tensor, size: int, reach: float) -> tuple[Tensor, Tensor]:
    """Give each texel the face that is nearest to its centre, the first of those that are equally near.

    Args:
        points: places in the image, in texels, float64 [V, 2].
        faces: [F, 3].
        size: texels a side.
        reach: texels that are farther from every face than this belong to none.

    Returns:
        the face of each texel, -1 where there is none, int64 [size^2]; and the barycentrics of that face's
        point nearest to the texel's centre, float32 [size^2, 3].
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
    for first in range(0, total, PAIRS):
        pair = torch.arange(first, min(first + PAIRS, total), device=points.device)
        face = torch.searchsorted(ends, pair, right=True)
        rank = pair - (ends - count)[face]
        down, across = rank // wide[face], rank % wide[face]
        texel = (low[face, 1] + down) * size + low[face, 0] + across
        distance, _ = _to_face(corners[face], _centres(texel, size))
        nearest = far.scatter_reduce(0, texel, distance, "amin")
        wins = (distance < far[texel]) & (distance == nearest[texel])
        of_these = torch.full_like(owner, len(faces))
        of_these = of_these.scatter_reduce(0, texel, torch.where(wins, face, len(faces)), "amin")
        owner = torch.where(nearest < far, of_these, owner)
        far = nearest
    owned = owner < len(faces)
    bary = points.new_zeros(size * size, 3, dtype=torch.float32)
    texel = owned.nonzero()[:, 0]
    bary[texel] = _to_face(corners[owner[texel]], _centres(texel, size))[1].float()
    return torch.where(owned, owner, -1), bary


def _centres(texel: Tensor, size: int) -> Tensor:
    return torch.stack((texel % size, texel // size), 1) + 0.5


def _to_face(corners: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """From points [N, 2] to triangles [N, 3, 2]: squared distances [N], the nearest points' barycentrics."""
    a, b, c = corners.unbind(1)
    turn = _cross(b - a, c - a)
    second = _cross(points - a, c - a) / turn  # not a number for a face without area: not inside
    third = _cross(b - a, points - a) / turn
    inside = (turn != 0) & (second >= 0) & (third >= 0) & (second + third <= 1)
    shares, distances = zip(*(_along(p, q, points) for p, q in ((a, b), (b, c), (c, a))), strict=True)
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


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]


def _along(p: Tensor, q: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """How far along the segment p q, in [0, 1], its point nearest to each point is; the distance squared."""
    way = q - p
    length = (way * way).sum(1)
    share = torch.where(length > 0, ((points - p) * way).sum(1) / length, 0).clamp(0, 1)
    rest = p + share[:, None] * way - points
    return share, (rest * rest).sum(1)
