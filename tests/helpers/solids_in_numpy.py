"""Reference implementation of the toy world's solids in NumPy, for parity tests of the compiled kernels.

It follows the documentation of `Builder`, not the kernels.

A shape is a function from points [N, 3] to signed distances [N], in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

Array = np.ndarray
Shape = Callable[[Array], Array]


def ellipsoid(radii: tuple[float, float, float]) -> Shape:
    """Return the first-order distance f / |grad f| with f = |p / radii| - 1."""
    r = np.asarray(radii)

    def distance(p: Array) -> Array:
        size = np.linalg.norm(p / r, axis=1)
        slope = np.linalg.norm(p / r**2, axis=1) / size
        return (size - 1) / slope

    return distance


def box(half: tuple[float, float, float]) -> Shape:
    """Return the exact distance to a box with half extents `half`."""
    h = np.asarray(half)

    def distance(p: Array) -> Array:
        outside = np.linalg.norm(p - np.clip(p, -h, h), axis=1)
        inside = (h - np.abs(p)).min(1)
        return np.where(outside > 0, outside, -inside)

    return distance


def polygon(corners: Array) -> Shape:
    """Return the exact distance of points [N, 2] to a polygon [K, 2], negative inside (even-odd rule)."""

    def distance(p: Array) -> Array:
        nearest = np.full(len(p), np.inf)
        inside = np.zeros(len(p), dtype=bool)
        for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
            if (a == b).all():
                continue
            t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(p - a - t[:, None] * (b - a), axis=1))
            with np.errstate(divide="ignore", invalid="ignore"):
                crossing = a[0] + (p[:, 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
            inside ^= ((a[1] > p[:, 1]) != (b[1] > p[:, 1])) & (p[:, 0] < crossing)
        return np.where(inside, -nearest, nearest)

    return distance


def cone(bottom: float, top: float, half: float) -> Shape:
    """Return the exact distance to a frustum; its profile covers both sides of the axis."""
    outline = polygon(np.array([[-bottom, -half], [bottom, -half], [top, half], [-top, half]]))
    return lambda p: outline(np.stack((np.hypot(p[:, 0], p[:, 1]), p[:, 2]), 1))


def limb(start: Array, end: Array, radius: float, end_radius: float) -> Shape:
    """Return the distance to a tapered capsule, as the union of 3001 spheres along its axis."""

    def distance(p: Array) -> Array:
        nearest = np.full(len(p), np.inf)
        for t in np.linspace(0, 1, 3001):
            centre = (1 - t) * start + t * end
            nearest = np.minimum(
                nearest, np.linalg.norm(p - centre, axis=1) - (1 - t) * radius - t * end_radius
            )
        return nearest

    return distance


def torus(ring: float, radius: float) -> Shape:
    """Return the exact distance to a torus around z, from the nearest point of its centre line."""

    def distance(p: Array) -> Array:
        along = p * [1, 1, 0]
        nearest = ring * along / np.linalg.norm(along, axis=1, keepdims=True)
        return np.linalg.norm(p - nearest, axis=1) - radius

    return distance


def hull(corners: Array, faces: list[tuple[int, int, int]]) -> Shape:
    """Return the largest distance to the planes of the faces: a lower bound for a convex body."""
    middle = corners.mean(0)
    planes = []
    for a, b, c in faces:
        normal = np.cross(corners[b] - corners[a], corners[c] - corners[a])
        normal /= np.linalg.norm(normal)
        planes.append((normal * np.sign(normal @ (corners[a] - middle)), corners[a]))
    return lambda p: np.max([(p - at) @ normal for normal, at in planes], axis=0)


def prism(half_length: float, half_width: float, height: float) -> Shape:
    """Return a bound of the distance to a triangular prism with its base at z = 0."""
    ends = [[x, y, z] for x in (-half_length, half_length)
            for y, z in ((-half_width, 0), (half_width, 0), (0, height))]  # fmt: skip
    return hull(np.array(ends, dtype=float), [(0, 1, 2), (3, 4, 5), (0, 1, 3), (0, 2, 3), (1, 2, 4)])


def pyramid(half_x: float, half_y: float, height: float) -> Shape:
    """Return a bound of the distance to a pyramid with a rectangular base at z = 0."""
    base = [[half_x, half_y, 0], [-half_x, half_y, 0], [-half_x, -half_y, 0], [half_x, -half_y, 0]]
    corners = np.array([*base, [0, 0, height]], dtype=float)
    return hull(corners, [(0, 1, 2), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)])


def moved(shape: Shape, at: tuple[float, float, float], turn: tuple[float, float, float]) -> Shape:
    """Rotate a shape about x, then y, then z (degrees), then translate it."""
    back = Rotation.from_euler("xyz", turn, degrees=True).inv()
    return lambda p: shape(back.apply(p - np.asarray(at)))


def rounded(shape: Shape, radius: float) -> Shape:
    """Grow a shape by `radius`."""
    return lambda p: shape(p) - radius


def mirrored(shape: Shape) -> Shape:
    """Add the mirror image at -y."""
    return lambda p: np.minimum(shape(p), shape(p * [1, -1, 1]))


def repeated(shape: Shape, count: int) -> Shape:
    """Repeat a shape around the z axis."""
    turns = [Rotation.from_euler("z", -360 * k / count, degrees=True) for k in range(count)]
    return lambda p: np.min([shape(turn.apply(p)) for turn in turns], axis=0)


def union(one: Shape, other: Shape) -> Shape:
    """Return the union of two shapes."""
    return lambda p: np.minimum(one(p), other(p))


def cut(one: Shape, other: Shape) -> Shape:
    """Subtract `other` from `one`."""
    return lambda p: np.maximum(one(p), -other(p))


def blended(one: Shape, other: Shape, width: float) -> Shape:
    """Return the smooth union: the minimum, less a parabola where the distances differ by under `width`."""

    def distance(p: Array) -> Array:
        a, b = one(p), other(p)
        near = np.clip(1 - np.abs(a - b) / width, 0, None)
        return np.minimum(a, b) - width * near**2 / 4

    return distance
