"""Object classes: plants."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, MAIN, Builder, Solid, rotation


def mushroom(rng: np.random.Generator) -> Solid:
    """A domed cap with round dots on a stem that widens to its foot."""
    b = Builder()
    wide, high = rng.uniform(0.55, 0.68), rng.uniform(0.34, 0.46)
    stem = rng.uniform(0.17, 0.22)
    b.cone(stem * 1.4, stem, 0.36, at=(0, 0, 0.36), paint=ACCENT, round=0.02)
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


def tree(rng: np.random.Generator) -> Solid:
    """A fir: cones stacked on a trunk."""
    b = Builder()
    tiers = int(rng.integers(3, 5))
    foot, top = rng.uniform(0.52, 0.6), rng.uniform(0.24, 0.3)
    trunk, sink = rng.uniform(0.18, 0.22), rng.uniform(0.04, 0.1)
    b.cylinder(trunk, 0.3, at=(0, 0, -0.56 - sink), paint=ACCENT, round=0.02)
    bottoms = np.linspace(-0.42, rng.uniform(0.25, 0.35), tiers)
    for low, wide in zip(bottoms, np.linspace(foot, top, tiers), strict=True):
        high = min(low + 0.5, 0.78)
        tip = 0.04 if low == bottoms[-1] else 0.15 * wide
        b.cone(wide, tip, (high - low) / 2, at=(0, 0, (low + high) / 2), round=0.05)
    return b.solid()


def cactus(rng: np.random.Generator) -> Solid:
    """A ribbed column with two bent arms in a pot; some bear a blossom."""
    b = Builder()
    thick, high = rng.uniform(0.21, 0.24), rng.uniform(0.44, 0.54)
    ribs = int(rng.integers(6, 9))
    b.limb((0, 0, -0.5), (0, 0, high), thick)
    b.limb((thick, 0, -0.5), (0.75 * thick, 0, high), 0.06, repeat=ribs, blend=0.04)
    b.group()
    left = rng.choice((-1, 1))
    for side, low in ((left, rng.uniform(-0.05, 0.05)), (-left, rng.uniform(0.1, 0.22))):
        out, arm = side * rng.uniform(0.54, 0.57), rng.uniform(0.11, 0.13)
        b.limb((0, 0, low - 0.02), (0, out, low), arm)
        b.limb((0, out, low), (0, out, low + rng.uniform(0.22, 0.32)), arm, 0.95 * arm, blend=0.06)
    b.group()
    b.cone(0.26, 0.34, 0.17, at=(0, 0, -0.6), paint=ACCENT, round=0.02)
    b.cylinder(0.38, 0.06, at=(0, 0, -0.42), paint=ACCENT, round=0.03)
    if rng.random() < 0.6:
        b.group()
        b.sphere(0.1, at=(0, 0, high + thick + 0.03), paint="yellow")
        b.sphere(0.09, at=(0.12, 0, high + thick - 0.02), paint="pink", repeat=5)
    return b.solid()


def flower(rng: np.random.Generator) -> Solid:
    """Round petals about a middle that looks forward and up, on a stem with two leaves."""
    b = Builder()
    petals = int(rng.integers(5, 8))
    tilt = -rng.uniform(18, 32)
    away = rng.uniform(0.3, 0.34)
    wide = {5: 0.2, 6: 0.175, 7: 0.155}[petals] * rng.uniform(0.95, 1.05)
    head = np.array([0.06, 0.0, 0.3])
    for turn in np.arange(petals) * 360 / petals:
        petal = head + rotation((turn, tilt, 0)) @ (0, 0, away)
        b.ellipsoid((0.11, wide, 0.23), at=tuple(petal), turn=(turn, tilt, 0))
    middle = rng.uniform(0.21, 0.25)
    b.ellipsoid((0.2, middle, middle), at=tuple(head), turn=(0, tilt, 0), paint=ACCENT)
    b.limb((0, 0, -0.78), (-0.04, 0, 0.28), 0.085, 0.075, paint="green")
    for side, low in ((1, rng.uniform(-0.62, -0.5)), (-1, rng.uniform(-0.62, -0.4))):
        lift = rng.uniform(25, 45)
        foot = (0, side * 0.22, low + 0.12)
        b.ellipsoid((0.12, 0.29, 0.08), at=foot, turn=(side * lift, 0, 0), paint="green")
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("mushroom", mushroom, (5, 4), "red", "stem", "white"),
    ObjectClass("tree", tree, (2, 3), "green", "trunk", "brown"),
    ObjectClass("cactus", cactus, (4, 5), "green", "pot", "orange"),
    ObjectClass("flower", flower, (4, 3), "pink", "middle", "yellow"),
)
