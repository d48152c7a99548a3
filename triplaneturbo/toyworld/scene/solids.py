"""From what a caption means to the placed solid of one of its instances."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import ACCENT, MAIN, paint
from triplaneturbo.toyworld.scene.solid import Solid

# Proportions along x, y, z and the size of each modifier that changes the shape.
SHAPES: dict[str, tuple[tuple[float, float, float], float]] = {
    "": ((1.0, 1.0, 1.0), 1.0),
    "tall": ((0.83, 0.83, 1.2), 1.0),
    "flat": ((1.0, 1.0, 0.62), 1.0),
    "small": ((1.0, 1.0, 1.0), 0.6),
}
_SINK = 0.04  # how deep a rider sinks into its support, so that the two are one piece


@lru_cache(maxsize=4096)
def solid_of(thing: str, shape: str, support: str, index: int) -> Solid:
    """Instance `index` of a thing in one of the SHAPES, or standing on a support, placed.

    On a support it wears MAIN and its own second colour; the support wears ACCENT.
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
    """Scaled and set down so that it reaches that far from the middle of its foot's axis."""
    inside = solid.inside()
    low, high = inside.min(0), inside.max(0)
    return solid.scaled(reach / float(np.linalg.norm(inside - (low + high) / 2, axis=1).max()))


def _top(solid: Solid) -> float:
    """Height of the highest point inside on the z axis."""
    low, high = solid.bounds()
    heights = np.linspace(low[2], high[2], 400)
    on_axis = np.stack((np.zeros(400), np.zeros(400), heights), 1)
    return float(heights[solid.distance(on_axis) <= 0].max())
