"""Marching cubes tables: the triangles of each of the 256 sign patterns of a cell, computed, not copied.

A cell has eight corners, numbered 4 dx + 2 dy + dz, and twelve edges. A pattern has a bit set for each corner
that is outside. On each face of the cell, the surface connects edges where the sign changes; these segments
join to closed loops, one for each piece of surface in the cell, and each loop is triangulated. On an
ambiguous face, with two outside corners on a diagonal, the outside corners are separated (which reproduces
the triangle counts of the reference). The rule depends on one face alone, so two cells that share a face
agree on it, and the surface is closed for any signs.
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
    """Return a corner's position as steps along x, y and z from the cell's lowest corner."""
    return corner >> 2 & 1, corner >> 1 & 1, corner & 1


def _face_corners() -> list[tuple[int, int, int, int]]:
    """Return the corners around each of the six faces, counter-clockwise seen from outside the cell."""
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
    """Return the closed loops of cell edges that bound the surface, counter-clockwise seen from outside."""
    successor: dict[int, int] = {}
    for face in _FACES:
        outside = [bool(pattern >> corner & 1) for corner in face]
        edges = [_EDGE_OF[frozenset((face[side], face[(side + 1) % 4]))] for side in range(4)]
        entries = [side for side in range(4) if outside[side] and not outside[(side + 1) % 4]]
        for side in entries:
            # Walk back around the face over the outside corners to the edge where the sign changed before.
            back = side
            while outside[back]:
                back = (back - 1) % 4
            successor[edges[side]] = edges[back]
    result = []
    while successor:
        start = min(successor)
        loop = [start]
        while (edge := successor.pop(loop[-1])) != start:
            loop.append(edge)
        result.append(tuple(loop))
    return result


def _midpoint(edge: int) -> tuple[float, float, float]:
    axis, low = EDGES[edge]
    x, y, z = (step + 0.5 * (axis == index) for index, step in enumerate(corner_offset(low)))
    return x, y, z


def _triangulations(first: int, last: int) -> list[tuple[Triangle, ...]]:
    """Return all triangulations of the polygon with corners first..last."""
    if last - first < 2:
        return [()]
    return [
        (*low, (first, middle, last), *high)
        for middle in range(first + 1, last)
        for low in _triangulations(first, middle)
        for high in _triangulations(middle, last)
    ]


def triangulate(loop: Loop) -> list[Triangle]:
    """Triangulate a loop with the longest chords.

    That avoids chords within a face of the cell, where a neighbouring cell could have the same chord (an edge
    of four triangles); and it reproduces the volumes of the reference, where short chords would give
    systematically smaller solids.
    """

    def cost(triangulation: tuple[Triangle, ...]) -> tuple[float, list[tuple[int, int]]]:
        sides = {frozenset(side) for a, b, c in triangulation for side in ((a, b), (b, c), (a, c))}
        chords = [side for side in sides if max(side) - min(side) not in (1, len(loop) - 1)]
        joined = [sorted(loop[corner] for corner in chord) for chord in chords]
        length = sum(dist(_midpoint(a), _midpoint(b)) for a, b in joined)
        return -round(length, 6), sorted((-b, a) for a, b in joined)  # then any fixed order among equals

    best = min(_triangulations(0, len(loop) - 1), key=cost)
    return [(loop[a], loop[b], loop[c]) for a, b, c in best]


@cache
def triangles() -> tuple[tuple[Triangle, ...], ...]:
    """Return the triangles of each of the 256 patterns as indices into `EDGES`; normals point outward."""
    return tuple(
        tuple(triangle for loop in loops(pattern) for triangle in triangulate(loop)) for pattern in range(256)
    )


@cache
def _packed() -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.tensor([len(result) for result in triangles()])
    flat = torch.tensor([triangle for result in triangles() for triangle in result])
    return counts, counts.cumsum(0) - counts, flat


def packed(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return `triangles()` as tensors: counts [256] and starts [256] by pattern, all triangles [T, 3]."""
    counts, starts, flat = _packed()
    return counts.to(device), starts.to(device), flat.to(device)
