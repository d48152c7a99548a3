"""Object classes: food."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, Builder, Solid, rotation


def _leaves(b: Builder, at: tuple[float, float, float], count: int, lift: float) -> None:
    """One or two thick leaves from a stem at `at` to the left and, the second, right; `lift` in degrees."""
    long = 0.37 - 0.05 * count  # a single leaf is larger
    for side in (1, -1)[:count]:
        tip = rotation((side * lift, 0, -side * 20)) @ (0, side * (long - 0.07), 0)
        b.ellipsoid(
            (0.25 - 0.04 * count, long, 0.08),
            at=tuple(at + tip),
            turn=(side * lift, 0, -side * 20),
            paint=ACCENT,
        )


def apple(rng: np.random.Generator) -> Solid:
    """A round fruit with a dimple, a stem and a leaf; some have been bitten."""
    b = Builder()
    leaves, bitten = int(rng.integers(1, 3)), rng.random() < 0.5
    ring, thick = rng.uniform(0.26, 0.3), rng.uniform(0.4, 0.44)
    low = rng.uniform(0.14, 0.24)
    b.torus(ring, thick)
    b.ellipsoid((ring + 0.24, ring + 0.24, 0.46), at=(0, 0, -low), blend=0.25)
    if bitten:
        b.sphere(0.34, at=(0.2, 0.8, 0.06), paint="white", cut=True)
    b.group()
    b.limb((0, 0, 0.2), (0, rng.uniform(-0.1, 0.0), 0.66), 0.07, 0.08, paint="brown")
    _leaves(b, (0, 0, 0.56), leaves, rng.uniform(15, 30))
    return b.solid()


def pear(rng: np.random.Generator) -> Solid:
    """A fruit with a round belly and a narrow neck, a stem and a leaf."""
    b = Builder()
    belly, neck = rng.uniform(0.46, 0.5), rng.uniform(0.2, 0.25)
    lean = rng.uniform(-0.08, 0.08)
    b.ellipsoid((belly, belly, 0.45), at=(0, 0, -0.33))
    b.limb((0, 0, -0.1), (0, lean, rng.uniform(0.28, 0.34)), 0.3, neck, blend=0.25)
    b.group()
    b.limb((0, lean, 0.4), (0, 1.6 * lean, 0.8), 0.085, 0.08, paint="brown")
    _leaves(b, (0, 1.35 * lean, 0.63), int(rng.integers(1, 3)), rng.uniform(10, 30))
    return b.solid()


def carrot(rng: np.random.Generator) -> Solid:
    """A root that tapers to its tip below a tuft of leaves."""
    b = Builder()
    wide = rng.uniform(0.29, 0.34)
    bend = rng.uniform(-0.1, 0.1)
    b.limb((0, 0, 0.2), (0, bend, -0.72), wide, 0.075)
    for at in (0.12, 0.4, 0.68)[int(rng.integers(0, 2)) :]:
        b.torus(wide * (1 - 0.8 * at) - 0.03, 0.05, at=(0, bend * at, 0.2 - 0.92 * at), blend=0.05)
    b.group()
    leaves, spread = int(rng.integers(3, 6)), rng.uniform(0.2, 0.26)
    b.limb((0, 0, 0.4), (0, 0, 0.74), 0.14, 0.12, paint=ACCENT)
    b.limb((0.04, 0, 0.36), (spread, 0, rng.uniform(0.62, 0.68)), 0.07, 0.095, paint=ACCENT, repeat=leaves)
    return b.solid()


def cupcake(rng: np.random.Generator) -> Solid:
    """Swirls of icing with a cherry in a pleated cup."""
    b = Builder()
    tiers, pleats = int(rng.integers(2, 4)), int(rng.integers(8, 11))
    low, high = rng.uniform(0.33, 0.37), rng.uniform(0.45, 0.5)
    b.cone(low, high, 0.24, at=(0, 0, -0.38), paint=ACCENT)
    b.limb((low, 0, -0.54), (high - 0.02, 0, -0.2), 0.09, paint=ACCENT, repeat=pleats)
    b.group()
    wide, slant = high + rng.uniform(0.12, 0.16), rng.choice((-6.0, 6.0))
    for i in range(tiers):
        radius = wide * (1 - i / (tiers + 0.3))
        tall = {2: 0.26, 3: 0.2}[tiers]
        b.ellipsoid(
            (radius, radius, tall),
            at=(0, 0, -0.06 + i * 0.48 / (tiers - 0.2)),
            turn=(slant, 0, 0),
            blend=0.03,
        )
    b.group()
    b.sphere(rng.uniform(0.13, 0.16), at=(0, 0, 0.55), paint="red")
    return b.solid()


def donut(rng: np.random.Generator) -> Solid:
    """A ring of dough leaning back, iced in front, with sprinkles."""
    b = Builder()
    ring, thick = rng.uniform(0.47, 0.51), rng.uniform(0.23, 0.27)
    lean = rng.uniform(52, 64)
    frame = rotation((0, lean, 0))
    b.torus(ring, thick, turn=(0, lean, 0), paint=ACCENT)
    b.group()
    b.torus(ring, thick + 0.02, at=tuple(frame @ (0, 0, 0.06)), turn=(0, lean, 0))
    b.group()
    count = int(rng.integers(6, 9))
    colors = ("yellow", "cyan", "white")
    for i, around in enumerate(np.arange(count) * 2 * np.pi / count + rng.uniform(0, 1)):
        tilt = (-0.35, 0.4)[i % 2]  # toward the hole, toward the rim
        reach = ring + (thick + 0.02) * np.sin(tilt)
        middle = np.array(
            [reach * np.cos(around), reach * np.sin(around), 0.06 + (thick + 0.02) * np.cos(tilt)]
        )
        turn = rng.uniform(0, np.pi)
        half = 0.07 * np.array([np.cos(turn), np.sin(turn), 0])
        b.limb(tuple(frame @ (middle - half)), tuple(frame @ (middle + half)), 0.06, paint=colors[i % 3])
    return b.solid()


def ice_cream(rng: np.random.Generator) -> Solid:
    """Scoops or a swirl in a cone, with a cherry or a wafer on top."""
    b = Builder()
    wide = rng.uniform(0.34, 0.38)
    b.cone(0.06, wide, 0.36, at=(0, 0, -0.42), paint=ACCENT, round=0.02)
    b.cylinder(wide + 0.02, 0.04, at=(0, 0, -0.1), paint=ACCENT, round=0.03)
    b.group()
    if rng.random() < 0.5:
        b.torus(wide + 0.01, 0.08)
        b.sphere(wide + 0.06, at=(0, 0, 0.14))
        b.sphere(wide - 0.04, at=(0, 0, 0.62))
    else:
        slant = rng.choice((-7.0, 7.0))
        for i, radius in enumerate((wide + 0.1, wide - 0.02, wide - 0.14)):
            b.ellipsoid((radius, radius, 0.2), at=(0, 0, 0.06 + 0.26 * i), turn=(slant, 0, 0), blend=0.03)
        b.limb((0, 0, 0.6), (0, 0, 0.84), 0.15, 0.07, blend=0.05)
    b.group()
    if rng.random() < 0.5:
        b.sphere(0.14, at=(0, 0, 0.97), paint="red")
    else:
        b.limb((0, 0.1, 0.5), (0, 0.32, 0.98), 0.08, paint="brown")
    return b.solid()


def pumpkin(rng: np.random.Generator) -> Solid:
    """A ribbed gourd with a stem and a carved face."""
    b = Builder()
    ribs, out = int(rng.integers(8, 11)), rng.uniform(0.3, 0.36)
    high = rng.uniform(0.48, 0.55)
    b.ellipsoid((0.36, 0.28, high), at=(out, 0, 0), repeat=ribs)
    b.ellipsoid((0.5, 0.5, 0.85 * high))
    reach = out + 0.3
    b.prism(0.2, rng.uniform(0.11, 0.14), 0.2, at=(reach, 0.24, 0.06), paint="black", cut=True, mirror=True)
    grin = rng.uniform(0.26, 0.32)
    b.prism(0.2, grin, 0.2, at=(reach, 0, -0.08), turn=(180, 0, 0), paint="black", cut=True)
    if rng.random() < 0.5:
        b.box((0.12, 0.06, 0.07), at=(reach - 0.14, 0, -0.12))
    b.group()
    b.limb((0, 0, 0.3), (0, rng.choice((-1, 1)) * 0.1, 0.7), 0.19, 0.13, paint=ACCENT)
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("apple", apple, (3, 4), "red", "leaf", "green"),
    ObjectClass("pear", pear, (5, 1), "yellow", "leaf", "green"),
    ObjectClass("carrot", carrot, (4, 2), "orange", "top", "green"),
    ObjectClass("cupcake", cupcake, (2, 4), "pink", "cup", "blue"),
    ObjectClass("donut", donut, (1, 2), "pink", "dough", "brown"),
    ObjectClass("ice cream", ice_cream, (2, 3), "pink", "cone", "orange"),
    ObjectClass("pumpkin", pumpkin, (1, 3), "orange", "stem", "green"),
)
