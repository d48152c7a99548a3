"""Solids: unions of painted primitives, built by hand and asked for their signed distance.

A solid is a table of numbers, one row a primitive, that a compiled loop walks (`kernels.py`). Space is the
house's: z up, the front toward +x, left toward +y. Classes build in their own units; `placed` fits a solid
into the world's sphere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from triplaneturbo.toyworld.scene import kernels
from triplaneturbo.toyworld.scene.palette import ACCENT, MAIN, NAMES

# Columns of a row.
KIND, OPERATION, BLEND, PAINT, MIRROR, REPEAT, GROUP = range(7)
AT, TURN, SIZES, ROUND = slice(7, 10), slice(10, 19), slice(19, 24), 24
COLUMNS = 25
RADIUS = 0.8  # of the sphere about the origin that a placed solid fills


@dataclass(frozen=True)
class Solid:
    """A union of groups of primitives.

    Attributes:
        rows: [P, 25] float64, as `Builder` writes them.
        stretch: factors along x, y and z, applied after everything in `rows`.
        shift: the point, before stretching, that comes to the origin.
    """

    rows: np.ndarray
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """A lower bound of the signed distance at points [N, 3], exact enough to trace rays: [N]."""
        return kernels.distances(self.rows, *self._frame(), np.ascontiguousarray(points, dtype=np.float64))[0]

    def paints(self, points: np.ndarray) -> np.ndarray:
        """The paint of the primitive nearest to points [N, 3]: [N] int64."""
        return kernels.distances(self.rows, *self._frame(), np.ascontiguousarray(points, dtype=np.float64))[1]

    def _frame(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.stretch, dtype=np.float64), np.asarray(self.shift, dtype=np.float64)

    def inside(self) -> np.ndarray:
        """Points inside on a regular grid of about 64 nodes along each side of its bounds: [N, 3].

        Raises:
            ValueError: there are none, or it reaches out of [-4, 4]^3.
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
            raise ValueError("the solid reaches beyond 4 units")
        return inside

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3], [3] of what is inside, to about a sixtieth of its size."""
        inside = self.inside()
        return inside.min(0), inside.max(0)

    def placed(self, proportions: tuple[float, float, float] = (1.0, 1.0, 1.0), size: float = 1.0) -> Solid:
        """The solid centred and scaled so that its surface just fits a sphere of radius 0.8 times `size`.

        `proportions` stretch it along x, y and z before it is fitted.
        """
        inside = self.inside()
        centre = (inside.min(0) + inside.max(0)) / 2
        reach = float(np.linalg.norm((inside - centre) * proportions, axis=1).max())
        x, y, z = (float(p) * RADIUS * size / reach for p in proportions)
        return replace(self, stretch=(x, y, z), shift=(float(centre[0]), float(centre[1]), float(centre[2])))

    def scaled(self, factor: float) -> Solid:
        """The same shape, `factor` times as large, about its own origin; for solids not yet placed."""
        rows = self.rows.copy()
        rows[:, BLEND] *= factor
        rows[:, AT] *= factor
        rows[:, SIZES] *= factor
        rows[:, ROUND] *= factor
        ratio = rows[:, KIND] == kernels.STAR  # its second size is a ratio
        rows[ratio, SIZES.start + 1] /= factor
        return replace(self, rows=rows)

    def raised(self, height: float) -> Solid:
        """The same shape, `height` higher; for solids not yet placed."""
        rows = self.rows.copy()
        rows[:, AT.stop - 1] += height
        return replace(self, rows=rows)

    def repainted(self, paints: dict[int, int]) -> Solid:
        """The same shape with some paints exchanged."""
        rows = self.rows.copy()
        for old, new in paints.items():
            rows[self.rows[:, PAINT] == old, PAINT] = new
        return replace(self, rows=rows)

    def union(self, other: Solid) -> Solid:
        """The union with another solid not yet placed; cuts and blends of one leave the other alone."""
        rows = other.rows.copy()
        rows[:, GROUP] += self.rows[:, GROUP].max() + 1
        return replace(self, rows=np.concatenate((self.rows, rows)))


class Builder:
    """Adds primitives one after the other; `solid` gives what was built.

    Every method takes, by keyword:
        at: where the primitive's own origin comes to stand, (x, y, z).
        turn: degrees about x, then y, then z, before it is moved to `at`.
        paint: a colour's name, or MAIN or ACCENT.
        blend: width of a smooth union with what its group holds so far; 0 for a sharp one.
        cut: take the primitive away from what its group holds so far, instead of adding it. What is laid
            bare wears `paint`, or its old paint if that is None.
        mirror: also at -y.
        repeat: that many copies about the z axis, the first where it stands (it should fit its sector).
        round: radius by which edges are rounded, outside of the given sizes.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._group = 0

    def group(self) -> None:
        """Begin a new group: what follows neither cuts nor blends with what stands."""
        self._group += 1

    def sphere(self, radius: float, **how) -> None:
        """A ball."""
        self._add(kernels.ELLIPSOID, (radius, radius, radius), **how)

    def ellipsoid(self, radii: tuple[float, float, float], **how) -> None:
        """An ellipsoid with half axes `radii`."""
        self._add(kernels.ELLIPSOID, radii, **how)

    def box(self, half: tuple[float, float, float], **how) -> None:
        """A box of half sizes `half`."""
        self._add(kernels.BOX, half, **how)

    def cylinder(self, radius: float, half: float, **how) -> None:
        """A cylinder along z, 2 * `half` high."""
        self._add(kernels.CONE, (radius, radius, half), **how)

    def cone(self, bottom: float, top: float, half: float, **how) -> None:
        """A cone's frustum along z, 2 * `half` high, with these radii at its ends."""
        self._add(kernels.CONE, (bottom, top, half), **how)

    def limb(self, start: tuple[float, float, float], end: tuple[float, float, float], radius: float,
             end_radius: float | None = None, **how) -> None:  # fmt: skip
        """A stick with round ends between two points; it may taper."""
        a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        length = float(np.linalg.norm(b - a))
        z = (b - a) / length
        helper = np.array([1.0, 0, 0]) if abs(z[0]) < 0.9 else np.array([0, 1.0, 0])
        x = np.cross(helper, z)
        x /= np.linalg.norm(x)
        frame = np.stack((x, np.cross(z, x), z), 1)  # columns: the stick's own axes
        sizes = (radius, radius if end_radius is None else end_radius, length)
        self._add(kernels.LIMB, sizes, at=start, frame=frame, **how)

    def torus(self, ring: float, radius: float, **how) -> None:
        """A ring about z: `ring` to the middle of its tube, which has `radius`."""
        self._add(kernels.TORUS, (ring, radius), **how)

    def prism(self, half_length: float, half_width: float, height: float, **how) -> None:
        """A gable roof: its foot in z = 0, its ridge along x at z = `height`."""
        self._add(kernels.PRISM, (half_length, half_width, height), **how)

    def pyramid(self, half_x: float, half_y: float, height: float, **how) -> None:
        """A pyramid on the rectangle in z = 0."""
        self._add(kernels.PYRAMID, (half_x, half_y, height), **how)

    def star(self, radius: float, ratio: float, half: float, **how) -> None:
        """A five-pointed star in the yz plane (one point up), 2 * `half` thick along x.

        `ratio`: the inner corners' radius over the points' one, about 0.45.
        """
        self._add(kernels.STAR, (radius, ratio, half), **how)

    def _add(self, kind: int, sizes: tuple[float, ...], *, at=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0),
             frame=None, paint: str | int | None = MAIN, blend: float = 0.0, cut: bool = False,
             mirror: bool = False, repeat: int = 1, round: float = 0.0) -> None:  # fmt: skip
        row = np.zeros(COLUMNS)
        row[KIND] = kind
        row[OPERATION] = kernels.CUT if cut else kernels.UNION
        row[BLEND] = blend
        row[PAINT] = -1 if paint is None else NAMES.index(paint) if isinstance(paint, str) else paint
        row[MIRROR], row[REPEAT], row[GROUP] = mirror, repeat, self._group
        row[AT] = at
        row[TURN] = (rotation(turn) if frame is None else frame).T.ravel()  # world to own axes
        row[SIZES.start : SIZES.start + len(sizes)] = sizes
        row[ROUND] = round
        self._rows.append(row)

    def solid(self) -> Solid:
        """What was built."""
        return Solid(np.stack(self._rows))


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation [3, 3] by these angles about x, then y, then z."""
    a, b, c = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


__all__ = ["ACCENT", "MAIN", "Builder", "Solid"]
