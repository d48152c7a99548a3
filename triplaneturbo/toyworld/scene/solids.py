"""Placed solids of object classes: shape modifiers, and pairs of a rider on a support."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import ACCENT, MAIN, paint
from triplaneturbo.toyworld.scene.solid import Solid

# (proportions along x, y and z, size) for each modifier that changes the shape.
SHAPES: dict[str, tuple[tuple[float, float, float], float]] = {
    "": ((1.0, 1.0, 1.0), 1.0),
    "tall": ((0.83, 0.83, 1.2), 1.0),
    "flat": ((1.0, 1.0, 0.62), 1.0),
    "small": ((1.0, 1.0, 1.0), 0.6),
}
_SINK = 0.04  # depth by which a rider sinks into its support, so that the two are connected


@lru_cache(maxsize=4096)
def solid_of(thing: str, shape: str, support: str, index: int) -> Solid:
    """Return the placed solid of an instance, in one of the SHAPES or standing on a support.

    In a pair the rider has paint MAIN and its natural second colour; the support has paint ACCENT.

    Args:
        thing: name of the object class.
        shape: key of SHAPES; ignored if there is a support.
        support: name of the class below it, or "".
        index: number of the instance, below INSTANCES.
    """
    if not support:
        return OBJECT_CLASSES[thing].instance(index).placed(*SHAPES[shape])
    rider, below = OBJECT_CLASSES[thing].instance(index), OBJECT_CLASSES[support].instance(index)
    rider = _normalize(rider, 0.62).repainted({ACCENT: paint(OBJECT_CLASSES[thing].accent_color)})
    below = _normalize(below, 0.6).repainted(
        {MAIN: ACCENT, ACCENT: paint(OBJECT_CLASSES[support].accent_color)}
    )
    foot, top = rider.bounds()[0][2], _top(below)
    return below.union(rider.raised(top - foot - _SINK)).placed()


def _normalize(solid: Solid, reach: float) -> Solid:
    """Return the solid scaled to fit a sphere of radius `reach` around the centre of its bounds."""
    inside = solid.inside()
    low, high = inside.min(0), inside.max(0)
    return solid.scaled(reach / float(np.linalg.norm(inside - (low + high) / 2, axis=1).max()))


def _top(solid: Solid) -> float:
    """Return the height of the highest point on the z axis that is inside the solid."""
    low, high = solid.bounds()
    heights = np.linspace(low[2], high[2], 400)
    on_axis = np.stack((np.zeros(400), np.zeros(400), heights), 1)
    return float(heights[solid.distance(on_axis) <= 0].max())
