"""Which triangles each of the 256 sign patterns of a cell gives: computed here, not copied.

A cell has eight corners, numbered 4 dx + 2 dy + dz, and twelve edges. A pattern has a bit set for each corner
that is outside. On each face of the cell the surface runs from the edges where one walks out of the solid to
those where one walks in; the runs join to closed loops, one for each piece of surface in the cell, and each
loop is cut into triangles. Where a face has two outside corners across a diagonal, the outside corners are
kept apart (the reference's counts say so). The rule looks at one face alone, so two cells that share a face
agree on it, and the whole surface is closed whatever the signs.
"""

from __future__ import annotations

from functools import cache
from math import dist

import torch
from torch import Tensor

Loop = tuple[int, ...]
Triangle = tuple[int, int, int]

# Edges as (axis, lower corner): four along each. Corner bits: x is 4, y is 2, z is 1.
_AXIS_BIT = (4, 2, 1)
EDGES = tuple((axis, corner) for axis in range(3) for corner in range(8) if not corner & _AXIS_BIT[axis])
_EDGE_OF = {frozenset((low, low | _AXIS_BIT[axis])): index for index, (axis, low) in enumerate(EDGES)}


def corner_offset(corner: int) -> tuple[int, int, int]:
    """Where a corner is, as steps along x, y and z from the cell's lowest corner."""
    return corner >> 2 & 1, corner >> 1 & 1, corner & 1


def _face_corners() -> list[tuple[int, int, int, int]]:
    """The corners around each of the six faces, counter-clockwise seen from outside the cell."""
    faces = []
    for axis in range(3):
        first, second = _AXIS_BIT[(axis + 1) % 3], _AXIS_BIT[(axis + 2) % 3]
        around = (0, first, first | second, second)  # counter-clockwise seen from the positive side
        high = _AXIS_BIT[axis]
        faces.append((around[0] | high, around[1] | high, around[2] | high, around[3] | high))
        faces.append((around[3], around[2], around[1], around[0]))
    return faces


_FACES = _face_corners()


def loops(pattern: int) -> list[Loop]:
    """The closed loops of edges along which the surface leaves a cell, counter-clockwise from outside it."""
    following: dict[int, int] = {}
    for face in _FACES:
        outside = [bool(pattern >> corner & 1) for corner in face]
        edges = [_EDGE_OF[frozenset((face[side], face[(side + 1) % 4]))] for side in range(4)]
        entries = [side for side in range(4) if outside[side] and not outside[(side + 1) % 4]]
        for side in entries:
            # Walk back around the face over the outside corners to where the walk left the solid.
            back = side
            while outside[back]:
                back = (back - 1) % 4
            following[edges[side]] = edges[back]
    found = []
    while following:
        start = min(following)
        loop = [start]
        while (edge := following.pop(loop[-1])) != start:
            loop.append(edge)
        found.append(tuple(loop))
    return found


def _midpoint(edge: int) -> tuple[float, float, float]:
    axis, low = EDGES[edge]
    x, y, z = (step + 0.5 * (axis == index) for index, step in enumerate(corner_offset(low)))
    return x, y, z


def _cuts(first: int, last: int) -> list[tuple[Triangle, ...]]:
    """All ways to cut the polygon of corners first..last into triangles."""
    if last - first < 2:
        return [()]
    return [
        (*low, (first, middle, last), *high)
        for middle in range(first + 1, last)
        for low in _cuts(first, middle)
        for high in _cuts(middle, last)
    ]


def triangulate(loop: Loop) -> list[Triangle]:
    """Cut a loop into triangles by the longest chords.

    That leaves no chord within a face, where a neighbour could have the same: four triangles would meet;
    and it gives the reference's volumes, where short chords would give systematically smaller solids.
    """

    def price(cut: tuple[Triangle, ...]) -> tuple[float, list[tuple[int, int]]]:
        sides = {frozenset(side) for a, b, c in cut for side in ((a, b), (b, c), (a, c))}
        chords = [side for side in sides if max(side) - min(side) not in (1, len(loop) - 1)]
        joined = [sorted(loop[corner] for corner in chord) for chord in chords]
        length = sum(dist(_midpoint(a), _midpoint(b)) for a, b in joined)
        return -round(length, 6), sorted((-b, a) for a, b in joined)  # any order will do among equals

    best = min(_cuts(0, len(loop) - 1), key=price)
    return [(loop[a], loop[b], loop[c]) for a, b, c in best]


@cache
def triangles() -> tuple[tuple[Triangle, ...], ...]:
    """For each of the 256 patterns its triangles, as indices into `EDGES`; normals point out of the solid."""
    return tuple(
        tuple(triangle for loop in loops(pattern) for triangle in triangulate(loop)) for pattern in range(256)
    )


@cache
def _packed() -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.tensor([len(found) for found in triangles()])
    flat = torch.tensor([triangle for found in triangles() for triangle in found])
    return counts, counts.cumsum(0) - counts, flat


def packed(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The same as tensors: how many triangles a pattern has [256], where they begin [256], all [T, 3]."""
    counts, starts, flat = _packed()
    return counts.to(device), starts.to(device), flat.to(device)
