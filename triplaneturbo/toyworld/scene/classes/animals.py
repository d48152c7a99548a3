"""Object classes: animals."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, MAIN, Builder, Solid


def eyes(
    b: Builder, at: tuple[float, float, float], radius: float, toward: tuple[float, float, float]
) -> None:
    """Two white balls at `at` and its mirror image, each with a black pupil that looks `toward`."""
    b.group()
    b.sphere(radius, at=at, paint="white", mirror=True)
    step = 0.55 * radius * np.asarray(toward) / np.linalg.norm(toward)
    b.sphere(0.68 * radius, at=tuple(np.asarray(at) + step), paint="black", mirror=True)


def duck(rng: np.random.Generator) -> Solid:
    """A bath duck: a boat of a body, a ball of a head, a broad beak, a tail that points up."""
    b = Builder()
    long, fat = rng.uniform(0.47, 0.55), rng.uniform(0.35, 0.41)
    head, high = rng.uniform(0.27, 0.32), rng.uniform(0.44, 0.52)
    x = long - 0.24
    b.ellipsoid((long, fat, 0.33))
    tail = rng.uniform(0.26, 0.36)
    b.limb((-long * 0.6, 0, 0.08), (-long - 0.1, 0, tail), 0.17, 0.08, blend=0.16)
    b.limb((x - 0.06, 0, 0.1), (x, 0, high), 0.22, blend=0.14)
    b.sphere(head, at=(x, 0, high), blend=0.06)
    if rng.random() < 0.5:  # a tuft
        b.limb((x - 0.04, 0, high + head - 0.08), (x - 0.17, 0, high + head + 0.06), 0.11, 0.07, blend=0.05)
    b.group()
    if rng.random() < 0.5:  # wings folded, or lifted
        b.ellipsoid((0.28, 0.1, 0.17), at=(-0.1, fat - 0.01, 0.04), turn=(0, 12, 0), mirror=True)
    else:
        b.ellipsoid((0.26, 0.1, 0.16), at=(-0.14, fat + 0.04, 0.14), turn=(-35, 25, 0), mirror=True)
    b.group()
    bill, wide = rng.uniform(0.22, 0.27), rng.uniform(0.19, 0.23)
    b.ellipsoid((bill, wide, 0.085), at=(x + head + 0.06, 0, high - 0.04), turn=(0, -8, 0), paint=ACCENT)
    b.ellipsoid((bill * 0.8, wide * 0.85, 0.08), at=(x + head + 0.03, 0, high - 0.12), paint=ACCENT)
    eyes(b, (x + 0.6 * head, 0.56 * head, high + 0.44 * head), 0.11, (1, 0.8, 0.3))
    return b.solid()


def fish(rng: np.random.Generator) -> Solid:
    """A high, narrow body with fins above, below, at the sides and an upright tail."""
    b = Builder()
    long, high, wide = rng.uniform(0.5, 0.56), rng.uniform(0.34, 0.4), rng.uniform(0.23, 0.28)
    b.ellipsoid((long, wide, high))
    b.limb((-0.3, 0, 0), (-long - 0.06, 0, 0), 0.17, 0.1, blend=0.12)
    b.torus(0.075, 0.06, at=(long - 0.02, 0, -0.06), turn=(0, 90, 0), paint="pink")
    b.group()
    if rng.random() < 0.5:  # a forked tail, or a fan
        b.limb((-long - 0.04, 0, 0), (-long - 0.26, 0, 0.25), 0.08, 0.11, paint=ACCENT)
        b.limb((-long - 0.04, 0, 0), (-long - 0.26, 0, -0.25), 0.08, 0.11, paint=ACCENT)
    else:
        b.ellipsoid((0.19, 0.085, 0.33), at=(-long - 0.18, 0, 0), paint=ACCENT)
    if rng.random() < 0.5:  # one fin on its back, or two
        b.ellipsoid((0.28, 0.075, 0.2), at=(-0.04, 0, high), turn=(0, 10, 0), paint=ACCENT)
    else:
        b.ellipsoid((0.16, 0.075, 0.2), at=(0.12, 0, high - 0.02), turn=(0, -35, 0), paint=ACCENT)
        b.ellipsoid((0.13, 0.075, 0.17), at=(-0.28, 0, high - 0.08), turn=(0, -45, 0), paint=ACCENT)
    b.ellipsoid((0.12, 0.075, 0.18), at=(-0.1, 0, -high), turn=(0, 30, 0), paint=ACCENT)
    side = rng.uniform(0.17, 0.21)
    b.ellipsoid(
        (side, 0.075, 0.13), at=(-0.06, wide + 0.03, -0.08), turn=(0, 20, -28), paint=ACCENT, mirror=True
    )
    y = wide * np.sqrt(1 - (0.3 / long) ** 2 - (0.12 / high) ** 2)
    eyes(b, (0.3, float(y) - 0.02, 0.12), 0.115, (0.6, 1, 0.1))
    return b.solid()


def cat(rng: np.random.Generator) -> Solid:
    """On four legs, a round head with pointed ears, its tail held high."""
    b = Builder()
    back, thick = rng.uniform(0.3, 0.38), rng.uniform(0.23, 0.27)
    b.limb((-back, 0, 0), (0.2, 0, 0.02), thick, thick * 0.95)
    stride = rng.uniform(-0.08, 0.08)
    b.limb((0.22, 0.15, 0), (0.24 + stride, 0.17, -0.42), 0.11, 0.1, mirror=True, blend=0.04)
    b.limb((-back, 0.15, 0), (-back - stride, 0.17, -0.42), 0.12, 0.1, mirror=True, blend=0.04)
    b.limb((0.2, 0, 0.05), (0.34, 0, 0.3), 0.18, blend=0.08)
    b.group()
    x, z, wide = 0.38, rng.uniform(0.32, 0.38), rng.uniform(0.31, 0.35)
    b.ellipsoid((0.27, wide, 0.27), at=(x, 0, z))
    ear = rng.uniform(0.12, 0.16)
    b.cone(0.14, 0.035, ear, at=(x - 0.02, wide * 0.6, z + 0.3), turn=(-16, 0, 0), round=0.02, mirror=True)
    b.group()
    paint = "white" if rng.random() < 0.6 else MAIN
    b.ellipsoid((0.1, 0.16, 0.1), at=(x + 0.23, 0, z - 0.1), paint=paint)
    b.ellipsoid((0.06, 0.075, 0.06), at=(x + 0.32, 0, z - 0.03), paint="pink")
    eyes(b, (x + 0.2, 0.16, z + 0.07), 0.105, (1, 0.35, 0.1))
    b.group()
    lean, hook = rng.uniform(0.12, 0.2), rng.integers(0, 3)  # its tip: straight, forward or back
    first, second = (-back - thick, 0, 0.16), (-back - thick - lean, 0, 0.42)
    third = (-back - thick - lean + (0.0, 0.1, -0.06)[hook], 0, 0.62)
    b.limb((-back - 0.1, 0, 0.08), first, 0.1, paint=ACCENT)
    b.limb(first, second, 0.1, paint=ACCENT)
    b.limb(second, third, 0.1, 0.09, paint=ACCENT)
    if hook:
        b.limb(third, (third[0] + (0, 0.17, -0.17)[hook], 0, 0.66), 0.09, paint=ACCENT)
    return b.solid()


def rabbit(rng: np.random.Generator) -> Solid:
    """Sitting up, with two long ears and a ball of a tail."""
    b = Builder()
    fat = rng.uniform(0.3, 0.36)
    b.ellipsoid((fat, fat, 0.38))
    b.ellipsoid((0.22, 0.13, 0.22), at=(0.04, fat - 0.06, -0.16), mirror=True, blend=0.04)
    b.limb((0.06, 0.2, -0.32), (fat + 0.1, 0.22, -0.32), 0.11, 0.1, mirror=True, blend=0.03)
    paws = rng.uniform(-0.08, 0.08)
    b.limb((0.18, 0.16, 0.12), (fat + 0.06, 0.13, 0.04 + paws), 0.1, 0.09, mirror=True, blend=0.03)
    b.group()
    z, head = rng.uniform(0.5, 0.55), rng.uniform(0.27, 0.3)
    b.ellipsoid((head, head + 0.03, 0.27), at=(0.1, 0, z))
    b.sphere(0.15, at=(-fat - 0.04, 0, -0.2), paint="white")
    b.group()
    top, apart = z + rng.uniform(0.6, 0.7), rng.uniform(0.18, 0.26)
    bent = rng.integers(0, 3)  # none, or the tip of one ear
    middle = (0.02, apart, z + 0.4)
    for side in (-1, 1):
        foot, tip = (0.05, 0.13 * side, z + 0.2), (0.0, (apart + 0.04) * side, top)
        b.limb(foot, (middle[0], middle[1] * side, middle[2]), 0.095, 0.12, paint=ACCENT)
        if side == 1 and bent == 1:
            tip = (0.08, apart + 0.3, z + 0.36)
        b.limb((middle[0], middle[1] * side, middle[2]), tip, 0.12, 0.09, paint=ACCENT)
    b.group()
    b.ellipsoid((0.08, 0.15, 0.1), at=(head + 0.06, 0, z - 0.08), paint="white")
    b.ellipsoid((0.06, 0.08, 0.065), at=(head + 0.14, 0, z - 0.01), paint="pink")
    if rng.random() < 0.5:
        b.box((0.04, 0.05, 0.07), at=(head + 0.07, 0, z - 0.19), paint="white", round=0.02)
    eyes(b, (head + 0.01, 0.17, z + 0.1), 0.11, (1, 0.5, 0.1))
    return b.solid()


def turtle(rng: np.random.Generator) -> Solid:
    """A domed shell with plates over a rim, four short legs, a round head held up."""
    b = Builder()
    wide, dome = rng.uniform(0.4, 0.45), rng.uniform(0.34, 0.4)
    b.ellipsoid((wide + 0.08, wide + 0.08, 0.15))
    b.limb((0.32, 0.3, 0), (0.44, 0.42, -0.2), 0.14, 0.13, mirror=True)
    b.limb((-0.3, 0.3, 0), (-0.4, 0.42, -0.2), 0.14, 0.13, mirror=True)
    b.limb((-0.4, 0, 0), (-wide - 0.2, 0, -0.06), 0.12, 0.07)
    neck, head = rng.uniform(0.2, 0.3), rng.uniform(0.21, 0.25)
    b.limb((0.3, 0, 0), (wide + 0.2, 0, neck), 0.15, blend=0.05)
    b.ellipsoid((head * 1.1, head, head), at=(wide + 0.26, 0, neck + 0.04), blend=0.05)
    b.group()
    b.ellipsoid((wide, wide, dome), at=(0, 0, 0.05), paint=ACCENT)
    b.group()
    around, plate = int(rng.integers(4, 7)), rng.uniform(0.12, 0.14)
    b.ellipsoid((plate * 1.1, plate * 1.1, 0.08), at=(0, 0, 0.01 + dome))
    tilt = np.radians(58)
    at = (0.94 * wide * np.sin(tilt), 0.0, 0.05 + 0.94 * dome * np.cos(tilt))
    b.ellipsoid((plate, plate, 0.08), at=at, turn=(0, 58, 0), repeat=around)
    eyes(b, (wide + 0.37, 0.15, neck + 0.13), 0.1, (1, 0.8, 0.2))
    return b.solid()


def whale(rng: np.random.Generator) -> Solid:
    """A great round body that ends in a level fluke, a pale belly, a fountain on its back."""
    b = Builder()
    long, fat = rng.uniform(0.55, 0.62), rng.uniform(0.39, 0.44)
    lift = rng.uniform(0.2, 0.32)
    b.ellipsoid((long, fat, 0.38))
    b.limb((-0.25, 0, 0), (-long - 0.22, 0, lift), 0.26, 0.11, blend=0.14)
    b.ellipsoid(
        (0.15, 0.26, 0.085), at=(-long - 0.28, 0.17, lift + 0.04), turn=(0, 20, 35), mirror=True, blend=0.03
    )
    b.ellipsoid((0.12, 0.26, 0.085), at=(0.12, fat + 0.06, -0.14), turn=(-25, 0, 30), mirror=True, blend=0.03)
    b.group()
    b.ellipsoid((long * 0.93, fat * 0.97, 0.3), at=(0.06, 0, -0.11), paint=ACCENT)
    b.group()
    jets, high = int(rng.integers(2, 5)), rng.uniform(0.56, 0.62)
    b.limb((0, 0, 0.3), (0, 0, high), 0.085, paint="cyan")
    b.limb((0, 0, high), (0.17, 0, high + 0.1), 0.085, paint="cyan", repeat=jets)
    eyes(b, (long * 0.72, fat * 0.68, 0.06), 0.1, (0.6, 1, 0.1))
    return b.solid()


def penguin(rng: np.random.Generator) -> Solid:
    """Upright, with a pale belly and face, flippers, and broad orange feet."""
    b = Builder()
    fat, head = rng.uniform(0.36, 0.4), rng.uniform(0.28, 0.31)
    z = rng.uniform(0.5, 0.56)
    b.ellipsoid((fat, fat, 0.48))
    b.sphere(head, at=(0, 0, z), blend=0.12)
    b.limb((-0.2, 0, -0.3), (-fat - 0.08, 0, -0.42), 0.12, 0.07, blend=0.05)
    lift = rng.uniform(10, 60)
    reach = 0.4
    t = np.radians(lift)
    end = (0.02, float(fat + reach * np.sin(t) - 0.04), float(0.2 - reach * np.cos(t)))
    b.limb((0, fat - 0.08, 0.2), end, 0.11, 0.08, mirror=True, blend=0.03)
    b.group()
    b.ellipsoid((fat * 0.8, fat * 0.8, 0.4), at=(fat * 0.26, 0, -0.05), paint=ACCENT)
    b.sphere(head * 0.66, at=(head * 0.38, head * 0.36, z + 0.02), paint=ACCENT, mirror=True)
    b.group()
    bill = rng.uniform(0.12, 0.16)
    b.cone(
        0.11, 0.04, bill, at=(head + bill - 0.06, 0, z - 0.04), turn=(0, 95, 0), paint="orange", round=0.02
    )
    b.ellipsoid((0.21, 0.15, 0.08), at=(0.16, 0.19, -0.46), turn=(0, 0, 12), paint="orange", mirror=True)
    eyes(b, (head * 0.82, head * 0.48, z + 0.1), 0.095, (1, 0.4, 0.1))
    return b.solid()


def snail(rng: np.random.Generator) -> Solid:
    """A long foot, two eyes on stalks, a coiled shell on its back."""
    b = Builder()
    tail, wide = rng.uniform(0.62, 0.7), rng.uniform(0.18, 0.21)
    b.limb((-tail, 0, -0.02), (0.4, 0, 0.06), 0.09, wide)
    x, z = rng.uniform(0.5, 0.58), rng.uniform(0.3, 0.36)
    b.limb((0.4, 0, 0.06), (x, 0, z), wide, 0.17, blend=0.06)
    b.ellipsoid((0.21, 0.2, 0.18), at=(x + 0.05, 0, z + 0.02), blend=0.05)
    out = rng.uniform(0.17, 0.22)
    b.limb((x, 0.09, z + 0.1), (x + 0.04, out, z + 0.36), 0.07, mirror=True)
    b.group()
    shell, thick = rng.uniform(0.34, 0.38), rng.uniform(0.24, 0.28)
    at = (-0.14, 0, shell + 0.08)
    b.ellipsoid((shell, thick, shell), at=at, paint=ACCENT)
    b.torus(shell * 0.86, 0.1, at=at, turn=(90, 0, 0), paint=ACCENT)
    b.group()
    y = thick * 0.78
    b.torus(shell * 0.56, 0.06, at=(-0.14, y, shell + 0.08), turn=(82, 0, 0), mirror=True)
    b.sphere(0.09, at=(-0.14, thick - 0.03, shell + 0.08), mirror=True)
    eyes(b, (x + 0.05, out, z + 0.42), 0.11, (1, 0.3, 0))
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("duck", duck, (5, 3), "yellow", "beak", "orange"),
    ObjectClass("fish", fish, (5, 0), "orange", "fins", "yellow"),
    ObjectClass("cat", cat, (2, 4), "grey", "tail", "white"),
    ObjectClass("rabbit", rabbit, (1, 5), "white", "ears", "pink"),
    ObjectClass("turtle", turtle, (0, 1), "green", "shell", "brown"),
    ObjectClass("whale", whale, (5, 2), "blue", "belly", "white"),
    ObjectClass("penguin", penguin, (5, 2), "black", "belly", "white"),
    ObjectClass("snail", snail, (5, 0), "yellow", "shell", "brown"),
)
