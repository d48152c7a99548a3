"""Solids: signed-distance models built from painted primitives (constructive solid geometry).

A solid is a table with one row per primitive, evaluated by compiled loops (`kernels.py`). Space is
right-handed with z up, the front toward +x and left toward +y. Classes are built in arbitrary units; `placed`
fits a solid into a sphere of radius 0.8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from triplaneturbo.toyworld.scene import primitives
from triplaneturbo.toyworld.scene.palette import ACCENT, MAIN, NAMES

# Columns of a row.
KIND, OPERATION, BLEND, PAINT, MIRROR, REPEAT, GROUP = range(7)
AT, TURN, SIZES, ROUND = slice(7, 10), slice(10, 19), slice(19, 24), 24
COLUMNS = 25
RADIUS = 0.8  # of the sphere around the origin that a placed solid fits into


@dataclass(frozen=True)
class Solid:
    """A union of groups of primitives.

    Attributes:
        rows: [P, 25] float64, as `Builder` writes them.
        stretch: scale factors along x, y and z, applied after everything in `rows`.
        shift: the point, before stretching, that is moved to the origin.
    """

    rows: np.ndarray
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return a lower bound of the signed distance at points [N, 3], fit for sphere tracing: [N]."""
        return self._evaluate(points)[0]

    def paints(self, points: np.ndarray) -> np.ndarray:
        """Return the paint of the primitive nearest to each of the points [N, 3]: [N] int64."""
        return self._evaluate(points)[1]

    def _evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from triplaneturbo.toyworld.scene import kernels  # numba; lists of words do not need it

        return kernels.distances(self.rows, *self._frame(), np.ascontiguousarray(points, dtype=np.float64))

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.stretch, dtype=np.float64), np.asarray(self.shift, dtype=np.float64)

    def inside(self) -> np.ndarray:
        """Return the nodes inside the solid of a grid with about 64 nodes per side of its bounds: [N, 3].

        Raises:
            ValueError: the solid is empty or extends beyond [-4, 4]^3.
        """
        low, high = np.full(3, -4.0), np.full(3, 4.0)
        for cells in (32, 40, 64):
            axes = [np.linspace(low[i], high[i], cells) for i in range(3)]
            points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
            step = (high - low) / (cells - 1)
            distance = self.distance(points)
            near = points[distance < 0.5 * float(np.linalg.norm(step))]
            if len(near) == 0:
                raise ValueError("the solid is empty")
            low, high = near.min(0) - step, near.max(0) + step
        inside = points[distance <= 0]
        if np.abs(inside).max() > 4:
            raise ValueError("the solid extends beyond 4 units")
        return inside

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper corner [3], [3] of the bounding box, to about 1/60 of its size."""
        inside = self.inside()
        return inside.min(0), inside.max(0)

    def placed(self, proportions: tuple[float, float, float] = (1.0, 1.0, 1.0), size: float = 1.0) -> Solid:
        """Return the solid centred and scaled to fit a sphere of radius 0.8 * `size`.

        Args:
            proportions: scale factors along x, y and z, applied before fitting.
        """
        inside = self.inside()
        centre = (inside.min(0) + inside.max(0)) / 2
        reach = float(np.linalg.norm((inside - centre) * proportions, axis=1).max())
        x, y, z = (float(p) * RADIUS * size / reach for p in proportions)
        return replace(self, stretch=(x, y, z), shift=(float(centre[0]), float(centre[1]), float(centre[2])))

    def scaled(self, factor: float) -> Solid:
        """Return the solid scaled by `factor` about its origin; for solids that are not placed."""
        rows = self.rows.copy()
        rows[:, BLEND] *= factor
        rows[:, AT] *= factor
        rows[:, SIZES] *= factor
        rows[:, ROUND] *= factor
        return replace(self, rows=rows)

    def raised(self, height: float) -> Solid:
        """Return the solid moved up by `height`; for solids that are not placed."""
        rows = self.rows.copy()
        rows[:, AT.stop - 1] += height
        return replace(self, rows=rows)

    def repainted(self, paints: dict[int, int]) -> Solid:
        """Return the solid with paints replaced according to {old: new}."""
        rows = self.rows.copy()
        for old, new in paints.items():
            rows[self.rows[:, PAINT] == old, PAINT] = new
        return replace(self, rows=rows)

    def union(self, other: Solid) -> Solid:
        """Return the union with another solid; cuts and blends of one do not affect the other.

        For solids that are not placed.
        """
        rows = other.rows.copy()
        rows[:, GROUP] += self.rows[:, GROUP].max() + 1
        return replace(self, rows=np.concatenate((self.rows, rows)))


class Builder:
    """Builds a solid from primitives, added one by one.

    Every method that adds a primitive takes these keyword arguments:
        at: position (x, y, z) of the primitive's local origin.
        turn: rotation in degrees about x, then y, then z, applied before the move to `at`.
        paint: name of a colour, or MAIN or ACCENT.
        blend: width of the smooth union with the group so far; 0 for a sharp union.
        cut: subtract the primitive from the group so far instead of adding it. The new surface gets `paint`,
            or keeps the old paint if `paint` is None.
        mirror: add a mirrored copy at -y.
        repeat: number of copies around the z axis, including the original, which should fit its sector.
        round: radius by which the primitive is grown, which rounds its edges.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._group = 0

    def group(self) -> None:
        """Start a new group: later primitives neither cut nor blend with earlier ones."""
        self._group += 1

    def sphere(self, radius: float, **how) -> None:
        """Add a sphere."""
        self._add(primitives.ELLIPSOID, (radius, radius, radius), **how)

    def ellipsoid(self, radii: tuple[float, float, float], **how) -> None:
        """Add an ellipsoid with semi-axes `radii`."""
        self._add(primitives.ELLIPSOID, radii, **how)

    def box(self, half: tuple[float, float, float], **how) -> None:
        """Add a box with half extents `half`."""
        self._add(primitives.BOX, half, **how)

    def cylinder(self, radius: float, half: float, **how) -> None:
        """Add a cylinder along z with height 2 * `half`."""
        self._add(primitives.CONE, (radius, radius, half), **how)

    def cone(self, bottom: float, top: float, half: float, **how) -> None:
        """Add a conical frustum along z with height 2 * `half` and these radii at its ends."""
        self._add(primitives.CONE, (bottom, top, half), **how)

    def limb(self, start: tuple[float, float, float], end: tuple[float, float, float], radius: float,
             end_radius: float | None = None, **how) -> None:  # fmt: skip
        """Add a capsule between two points, tapered if `end_radius` is given."""
        a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        length = float(np.linalg.norm(b - a))
        z = (b - a) / length
        helper = np.array([1.0, 0, 0]) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0])
        x = np.cross(helper, z)
        x /= np.linalg.norm(x)
        frame = np.stack((x, np.cross(z, x), z), 1)  # columns: the capsule's local axes
        sizes = (radius, radius if end_radius is None else end_radius, length)
        self._add(primitives.LIMB, sizes, at=start, frame=frame, **how)

    def torus(self, ring: float, radius: float, **how) -> None:
        """Add a torus around z with major radius `ring` and minor radius `radius`."""
        self._add(primitives.TORUS, (ring, radius), **how)

    def prism(self, half_length: float, half_width: float, height: float, **how) -> None:
        """Add a triangular prism, like a gable roof: base at z = 0, ridge along x at z = `height`."""
        self._add(primitives.PRISM, (half_length, half_width, height), **how)

    def pyramid(self, half_x: float, half_y: float, height: float, **how) -> None:
        """Add a pyramid with a rectangular base at z = 0."""
        self._add(primitives.PYRAMID, (half_x, half_y, height), **how)

    def _add(self, kind: int, sizes: tuple[float, ...], *, at=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0),
             frame=None, paint: str | int | None = MAIN, blend: float = 0.0, cut: bool = False,
             mirror: bool = False, repeat: int = 1, round: float = 0.0) -> None:  # fmt: skip
        """Append the row of a primitive; `frame` [3, 3], its local axes as columns, replaces `turn`."""
        row = np.zeros(COLUMNS)
        row[KIND] = kind
        row[OPERATION] = primitives.CUT if cut else primitives.UNION
        row[BLEND] = blend
        row[PAINT] = -1 if paint is None else NAMES.index(paint) if isinstance(paint, str) else paint
        row[MIRROR], row[REPEAT], row[GROUP] = mirror, repeat, self._group
        row[AT] = at
        row[TURN] = (rotation(turn) if frame is None else frame).T.ravel()  # world to local axes
        row[SIZES.start : SIZES.start + len(sizes)] = sizes
        row[ROUND] = round
        self._rows.append(row)

    def solid(self) -> Solid:
        """Return the solid."""
        return Solid(np.stack(self._rows))


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Return the rotation matrix [3, 3] of rotations about x, then y, then z."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


__all__ = ["ACCENT", "MAIN", "Builder", "Solid"]
