"""Things that grow."""

from __future__ import annotations

import numpy as np

from triplaneturbo.world.solid import ACCENT, MAIN, Builder, Solid
from triplaneturbo.world.thing import Thing


def mushroom(rng: np.random.Generator) -> Solid:
    """A domed cap with round dots on a stem that widens to its foot."""
    b = Builder()
    wide, high = rng.uniform(0.55, 0.68), rng.uniform(0.34, 0.46)
    stem = rng.uniform(0.13, 0.19)
    b.cone(stem * 1.35, stem, 0.36, at=(0, 0, 0.36), paint=ACCENT, round=0.02)
    b.group()
    b.ellipsoid((wide, wide, high), at=(0, 0, 0.68), paint=MAIN)
    b.box((1, 1, 0.5), at=(0, 0, 0.14), paint="white", cut=True)
    b.group()
    around = int(rng.integers(5, 7))
    for tilt, count in ((0.0, 1), (50.0, around)):
        t = np.radians(tilt)
        at = (wide * np.sin(t), 0.0, 0.68 + high * np.cos(t))
        b.sphere(0.1, at=at, paint="white", repeat=count)
    return b.solid()


THINGS = (Thing("mushroom", mushroom, "red", "stem", "white"),)
