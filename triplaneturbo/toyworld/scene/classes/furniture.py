"""Object classes: furniture and containers."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, Builder, Solid

ACROSS = (0.0, 90.0, 0.0)  # rotates the z axis onto the x axis


def chair(rng: np.random.Generator) -> Solid:
    """A seat with a cushion, three or four legs, and a back of boards, of one panel, or round with a hole."""
    b = Builder()
    kind, legs, square = rng.integers(0, 3), rng.integers(3, 5), rng.random() < 0.5
    half, seat, back = rng.uniform(0.33, 0.37), rng.uniform(0.46, 0.54), rng.uniform(0.58, 0.76)
    foot, thick = half - 0.05, rng.uniform(0.07, 0.085)

    def leg(x: float, y: float, mirror: bool) -> None:
        if square:
            b.box((thick - 0.02, thick - 0.02, seat / 2), at=(x, y, seat / 2), mirror=mirror, round=0.02)
        else:
            b.limb(
                (1.05 * x, 1.05 * y, 0.02), (0.8 * x, 0.8 * y, seat), thick * 0.9, thick * 1.1, mirror=mirror
            )

    leg(foot, foot, True)
    leg(-foot, foot if legs == 4 else 0.0, legs == 4)
    b.box((half, half, 0.04), at=(0, 0, seat), round=0.04)
    b.box((half - 0.1, half - 0.08, 0.04), at=(0.05, 0, seat + 0.1), paint=ACCENT, round=0.06)
    b.group()
    x = -half + 0.03
    if kind == 0:  # boards between two posts
        b.limb((x, half - 0.05, seat), (x - 0.06, half - 0.05, seat + back), 0.075, mirror=True)
        b.box((0.03, half - 0.06, 0.07), at=(x - 0.05, 0, seat + back - 0.09), round=0.03)
        b.box((0.03, half - 0.06, 0.05), at=(x - 0.03, 0, seat + 0.5 * back - 0.04), round=0.03)
    elif kind == 1:  # a panel
        b.box((0.04, half - 0.03, back / 2), at=(x - 0.02, 0, seat + back / 2), turn=(0, -5, 0), round=0.04)
    else:  # a round one
        wide = half + 0.03
        b.cylinder(wide, 0.04, at=(x, 0, seat + back - wide + 0.04), turn=ACROSS, round=0.03)
        b.box((0.04, half - 0.08, 0.15), at=(x, 0, seat + 0.15), round=0.03)
        b.cylinder(0.11, 0.2, at=(x, 0, seat + back - 0.2), turn=ACROSS, paint=None, cut=True)
    return b.solid()


def table(rng: np.random.Generator) -> Solid:
    """A square-cut or round top on four legs, with a strip of cloth across it."""
    b = Builder()
    is_round, along, stout = rng.random() < 0.4, rng.random() < 0.4, rng.random() < 0.5
    high, leg = rng.uniform(0.68, 0.76), rng.uniform(0.075, 0.095)
    wide, deep = rng.uniform(0.62, 0.7), rng.uniform(0.44, 0.5)
    if is_round:
        wide = deep = 0.62
    x, y = (0.37, 0.37) if is_round else (deep - 0.1, wide - 0.1)
    top = high - 0.07
    if is_round:
        b.cylinder(wide - 0.03, 0.04, at=(0, 0, top), round=0.03)
    else:
        b.box((deep - 0.03, wide - 0.03, 0.04), at=(0, 0, top), round=0.03)
    for front in (x, -x):
        if stout:
            b.box((leg - 0.02, leg - 0.02, top / 2), at=(front, y, top / 2), mirror=True, round=0.02)
        else:
            b.limb((front, y, 0.02), (front, y, top), leg * 0.8, leg * 1.25, mirror=True)
    b.group()
    cloth, drop = rng.uniform(0.18, 0.21) + 0.05 * (not along and not is_round), rng.uniform(0.14, 0.2)
    long, under = (wide if along else deep) + 0.03, top - 0.07 - drop
    turn = (0.0, 0.0, 90.0) if along else (0.0, 0.0, 0.0)
    middle = (0, 0, (high + 0.02 + under) / 2)
    b.box((long, cloth, (high + 0.02 - under) / 2), at=middle, turn=turn, paint=ACCENT, round=0.02)
    b.box((long - 0.09, 1.0, 0.5), at=(0, 0, top - 0.5), turn=turn, paint=None, cut=True)
    return b.solid()


def lamp(rng: np.random.Generator) -> Solid:
    """A wide shade with a glowing bulb, on a turned or a straight stand."""
    b = Builder()
    drum, kind = rng.integers(0, 2), rng.integers(0, 3)
    wide, half = rng.uniform(0.46, 0.52), rng.uniform(0.26, 0.3)
    narrow = wide - 0.06 if drum else rng.uniform(0.22, 0.3)
    foot, low = rng.uniform(0.3, 0.36), rng.uniform(0.7, 0.76)
    b.cylinder(foot - 0.04, 0.03, at=(0, 0, 0.05), paint=ACCENT, round=0.04)
    if kind == 0:
        b.sphere(0.21, at=(0, 0, 0.29), paint=ACCENT, blend=0.06)
    elif kind == 1:
        b.cone(0.22, 0.08, 0.2, at=(0, 0, 0.26), paint=ACCENT, round=0.02, blend=0.06)
    else:
        b.sphere(0.16, at=(0, 0, 0.22), paint=ACCENT, blend=0.04)
        b.sphere(0.13, at=(0, 0, 0.44), paint=ACCENT, blend=0.04)
    b.cylinder(0.075, low / 2, at=(0, 0, low / 2 + 0.05), paint=ACCENT, blend=0.04)
    b.group()
    b.cone(wide, narrow, half, at=(0, 0, low + half), round=0.03)
    b.cone(wide - 0.1, wide - 0.2, 0.12, at=(0, 0, low), paint="white", cut=True)
    b.group()
    b.sphere(0.18, at=(0, 0, low + 0.02), paint="yellow")
    b.sphere(0.09, at=(0, 0, low + 2 * half + 0.08), paint=ACCENT)
    return b.solid()


def sofa(rng: np.random.Generator) -> Solid:
    """A broad back and two arms about two or three soft seats, on short feet."""
    b = Builder()
    seats, rolled, humps = rng.integers(2, 4), rng.random() < 0.5, rng.random() < 0.5
    wide, back, arm = rng.uniform(0.68, 0.74), rng.uniform(0.64, 0.72), rng.uniform(0.42, 0.48)
    for x in (0.26, -0.26):
        b.cylinder(0.075, 0.1, at=(x, wide - 0.1, 0.1), paint="brown", mirror=True)
    b.box((0.3, wide - 0.08, 0.08), at=(0, 0, 0.2), round=0.05)
    if humps:
        b.box((0.06, wide / 2 - 0.08, 0.2), at=(-0.25, wide / 2 - 0.02, back - 0.28), mirror=True, round=0.08)
        b.box((0.06, wide - 0.12, 0.15), at=(-0.25, 0, 0.34), round=0.06)
    else:
        b.box((0.06, wide - 0.12, back / 2 - 0.15), at=(-0.25, 0, back / 2 + 0.07), round=0.08)
    if rolled:
        b.box((0.27, 0.06, 0.1), at=(0, wide - 0.08, arm - 0.16), mirror=True, round=0.04)
        b.cylinder(0.1, 0.3, at=(0, wide - 0.07, arm), turn=ACROSS, mirror=True, round=0.03)
    else:
        b.box((0.28, 0.05, 0.12), at=(0, wide - 0.09, arm - 0.09), mirror=True, round=0.06)
    room = wide - 0.17  # from the middle to an arm
    half = room / seats
    size, high = (0.2, half - 0.055, 0.05), 0.38
    if seats == 3:
        b.box(size, at=(0.08, 0, high), paint=ACCENT, round=0.055)
        b.box(size, at=(0.08, 2 * half, high), paint=ACCENT, mirror=True, round=0.055)
    else:
        b.box(size, at=(0.08, half, high), paint=ACCENT, mirror=True, round=0.055)
    return b.solid()


def stool(rng: np.random.Generator) -> Solid:
    """A round cushion high up on three or four splayed legs that a ring ties together."""
    b = Builder()
    legs, high, wide = int(rng.integers(3, 5)), rng.uniform(0.92, 1.02), rng.uniform(0.35, 0.39)
    foot, thick, ring = rng.uniform(0.38, 0.42), rng.uniform(0.075, 0.085), rng.uniform(0.3, 0.45)
    turn = np.radians(45.0 if legs == 4 else rng.choice([0.0, 60.0]))
    cos, sin = np.cos(turn), np.sin(turn)
    start, end = (foot * cos, foot * sin, 0.06), (0.22 * cos, 0.22 * sin, high - 0.2)
    b.limb(start, end, thick, repeat=legs)
    b.torus(foot - (foot - 0.22) * ring / (high - 0.2), 0.06, at=(0, 0, ring))
    b.cylinder(wide - 0.04, 0.04, at=(0, 0, high - 0.19), round=0.04)
    b.cylinder(wide - 0.08, 0.03, at=(0, 0, high - 0.08), paint=ACCENT, round=0.06)
    return b.solid()


def box(rng: np.random.Generator) -> Solid:
    """A box with an overhanging lid, some with a plinth, and a latch, a label or handles."""
    b = Builder()
    plinth, kind = rng.integers(0, 2), rng.integers(0, 3)
    deep, wide = rng.uniform(0.4, 0.46), rng.uniform(0.46, 0.52)
    high, lid = rng.uniform(0.72, 0.8), rng.uniform(0.09, 0.13)
    b.box((deep - 0.03, wide - 0.03, high / 2 - 0.03), at=(0, 0, high / 2), round=0.03)
    b.box((deep + 0.03, wide + 0.03, lid - 0.03), at=(0, 0, high), paint=ACCENT, round=0.03)
    if plinth:
        b.box((deep + 0.02, wide + 0.02, 0.05), at=(0, 0, 0.08), round=0.03)
    if kind == 0:
        b.box((0.04, 0.07, 0.11), at=(deep + 0.04, 0, high - lid - 0.04), paint="yellow", round=0.02)
    elif kind == 1:
        b.box((0.03, 0.2, 0.13), at=(deep, 0, 0.46 * high), paint="white", round=0.01)
    if kind == 2 or rng.random() < 0.5:
        z = 0.55 * high
        b.limb((-0.12, wide, z), (0.12, wide, z), 0.075, paint="black", mirror=True)
    if kind == 2:
        b.limb((deep, -0.12, 0.5 * high), (deep, 0.12, 0.5 * high), 0.075, paint="black")
    return b.solid()


def barrel(rng: np.random.Generator) -> Solid:
    """A bulging barrel with two or three hoops, sometimes with a tap or a bung."""
    b = Builder()
    hoops, extra = 2 + (rng.random() < 0.5), rng.integers(0, 2)
    wide, end, half = rng.uniform(0.48, 0.52), rng.uniform(0.37, 0.41), rng.uniform(0.56, 0.62)
    long = half / np.sqrt(1 - (end / wide) ** 2)
    b.ellipsoid((wide, wide, long), at=(0, 0, half))
    b.box((1, 1, 1), at=(0, 0, 2 * half + 1), paint=None, cut=True)
    b.box((1, 1, 1), at=(0, 0, -1), paint=None, cut=True)
    b.group()

    def hoop(z: float, thick: float) -> None:
        low, high = (wide * np.sqrt(1 - (v / long) ** 2) + 0.035 for v in (z - thick, z + thick))
        b.cone(low, high, thick, at=(0, 0, half + z), paint=ACCENT, round=0.005)

    thick = rng.uniform(0.06, 0.075)
    away = rng.uniform(0.58, 0.68) * half
    hoop(away, thick)
    hoop(-away, thick)
    if hoops == 3:
        hoop(0.0, thick)
    if extra == 1 and hoops == 2:
        b.cylinder(0.1, 0.08, at=(wide - 0.03, 0, half), turn=ACROSS, paint="black")
    elif extra == 1:
        z = half - 0.24
        b.limb((wide - 0.1, 0, z), (wide + 0.12, 0, z), 0.065, paint="yellow")
        b.limb((wide + 0.12, 0, z + 0.1), (wide + 0.12, 0, z - 0.1), 0.065, paint="yellow")
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("chair", chair, (5, 1), "brown", "cushion", "red"),
    ObjectClass("table", table, (1, 3), "brown", "cloth", "white"),
    ObjectClass("lamp", lamp, (4, 0), "orange", "stand", "brown"),
    ObjectClass("sofa", sofa, (3, 0), "blue", "seat", "cyan"),
    ObjectClass("stool", stool, (2, 1), "green", "cushion", "yellow"),
    ObjectClass("box", box, (4, 0), "orange", "lid", "brown"),
    ObjectClass("barrel", barrel, (0, 4), "brown", "band", "grey"),
)
