"""Object classes: characters."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.classes.animals import eyes
from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, Builder, Solid


def snowman(rng: np.random.Generator) -> Solid:
    """Three balls of snow with a black hat, a carrot for a nose, a scarf, buttons and two sticks for arms."""
    b = Builder()
    low, middle, top = rng.uniform(0.4, 0.44), rng.uniform(0.3, 0.33), rng.uniform(0.24, 0.26)
    chest = low * 0.9 + middle * 0.72
    head = chest + middle * 0.75 + top * 0.8
    b.ellipsoid((low, low, low * 0.92))
    b.sphere(middle, at=(0, 0, chest))
    b.sphere(top, at=(0, 0, head))
    b.group()
    neck = chest + middle * 0.84
    b.torus(0.21, 0.095, at=(0, 0, neck), paint=ACCENT)
    side = rng.choice((-1.0, 1.0))
    b.limb((0.26, 0.1 * side, neck), (middle + 0.03, 0.15 * side, neck - 0.3), 0.085, 0.095, paint=ACCENT)
    b.group()
    over = head + top * 0.62
    b.cylinder(0.27, 0.035, at=(0, 0, over), paint="black", round=0.025)
    if rng.random() < 0.5:  # a top hat, or a bucket
        b.cylinder(0.16, 0.14, at=(0, 0, over + 0.12), paint="black", round=0.02)
    else:
        b.cone(0.21, 0.12, 0.14, at=(0, 0, over + 0.12), paint="black", round=0.02)
    b.group()
    long = rng.uniform(0.1, 0.14)
    b.cone(
        0.075, 0.03, long, at=(top + long - 0.05, 0, head - 0.02), turn=(0, 92, 0), paint="orange", round=0.02
    )
    b.sphere(0.07, at=(top * 0.84, 0.11, head + 0.07), paint="black", mirror=True)
    if rng.random() < 0.5:
        b.sphere(0.075, at=(middle - 0.02, -0.02 * side, chest + 0.02), paint="black")
    for tilt in (14, 42):
        t = np.radians(tilt)
        b.sphere(0.075, at=(0.96 * low * float(np.cos(t)), 0, 0.9 * low * float(np.sin(t))), paint="black")
    lift = rng.uniform(-0.05, 0.25)
    b.limb(
        (0, middle - 0.1, chest), (0.08, middle + 0.27, chest + lift), 0.07, 0.065, paint="brown", mirror=True
    )
    return b.solid()


def robot(rng: np.random.Generator) -> Solid:
    """Boxes: a square head with a lamp on top, a chest with a panel, arms and legs."""
    b = Builder()
    wide, high = rng.uniform(0.3, 0.36), rng.uniform(0.28, 0.32)
    b.box((0.22, wide - 0.04, high - 0.04), round=0.04)
    lift = rng.uniform(-0.3, 0.3)
    b.limb((0, wide, 0.16), (0.02, wide + 0.16, 0.1), 0.1, mirror=True)
    b.limb((0.02, wide + 0.16, 0.1), (0.14, wide + 0.18, -0.2 + lift), 0.09, mirror=True)
    b.sphere(0.13, at=(0.16, wide + 0.18, -0.24 + lift), paint="grey", mirror=True)
    b.group()
    if rng.random() < 0.6:  # feet, or wheels
        b.box((0.08, 0.08, 0.14), at=(0, 0.17, -high - 0.1), round=0.03, mirror=True)
        b.box((0.16, 0.1, 0.05), at=(0.05, 0.18, -high - 0.24), paint="grey", round=0.04, mirror=True)
    else:
        b.cylinder(
            0.2, 0.06, at=(0, 0.2, -high - 0.12), turn=(90, 0, 0), paint="black", mirror=True, round=0.02
        )
        b.box((0.12, 0.2, 0.1), at=(0, 0, -high), round=0.02)
    b.group()
    face, brow = rng.uniform(0.25, 0.3), rng.uniform(0.2, 0.23)
    z = high + brow + 0.05
    b.cylinder(0.12, 0.1, at=(0, 0, high), paint="grey")
    b.box((0.2, face - 0.04, brow - 0.04), at=(0, 0, z), paint=ACCENT, round=0.04)
    b.group()
    if rng.random() < 0.5:  # one lamp, or two
        b.limb((0, 0, z + brow - 0.05), (0, 0, z + brow + 0.12), 0.065, paint="grey")
        b.sphere(0.1, at=(0, 0, z + brow + 0.15), paint="red")
    else:
        b.limb((0, 0.13, z + brow - 0.05), (0, 0.18, z + brow + 0.12), 0.065, paint="grey", mirror=True)
        b.sphere(0.1, at=(0, 0.18, z + brow + 0.15), paint="red", mirror=True)
    b.group()
    b.box((0.04, 0.13, 0.04), at=(0.2, 0, z - 0.11), paint="black", round=0.02)
    b.box((0.04, wide * 0.55, high * 0.5), at=(0.2, 0, 0.02), paint="white", round=0.02)
    for y, paint in ((-0.1, "red"), (0.1, "yellow"))[: int(rng.integers(1, 3))]:
        b.sphere(0.08, at=(0.25, y, 0.02), paint=paint)
    eyes(b, (0.18, 0.12, z + 0.06), 0.1, (1, 0, 0))
    return b.solid()


def ghost(rng: np.random.Generator) -> Solid:
    """A sheet with a wavy hem that floats, two black eyes, an open mouth, a pointed hat."""
    b = Builder()
    wide, flare = rng.uniform(0.36, 0.4), rng.uniform(0.44, 0.5)
    b.sphere(wide, at=(0, 0, 0.3))
    b.cone(flare - 0.06, wide - 0.01, 0.35, at=(0, 0, -0.06), blend=0.03)
    waves = int(rng.integers(5, 8))
    b.limb((flare - 0.14, 0, -0.32), (flare - 0.1, 0, -0.48), 0.14, 0.12, repeat=waves, blend=0.04)
    lift = rng.uniform(-0.1, 0.2)
    b.limb((0.05, wide - 0.08, 0.1), (0.16, wide + 0.22, 0.06 + lift), 0.13, 0.1, mirror=True, blend=0.08)
    b.group()
    high = rng.uniform(0.16, 0.2)
    b.cone(0.22, 0.04, high, at=(-0.03, 0, 0.25 + wide + high), turn=(0, -8, 0), paint=ACCENT, round=0.03)
    b.group()
    tall = rng.uniform(0.1, 0.13)
    b.ellipsoid(
        (0.09, 0.085, tall), at=(wide - 0.06, 0.14, 0.36), turn=(0, -8, 20), paint="black", mirror=True
    )
    round_mouth = rng.random() < 0.5
    radii = (0.08, 0.09, 0.1) if round_mouth else (0.08, 0.15, 0.07)
    b.ellipsoid(radii, at=(wide - 0.03, 0, 0.1), paint="black")
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("snowman", snowman, (3, 2), "white", "scarf", "red"),
    ObjectClass("robot", robot, (5, 0), "cyan", "head", "grey"),
    ObjectClass("ghost", ghost, (0, 2), "white", "hat", "purple"),
)
