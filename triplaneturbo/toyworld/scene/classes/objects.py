"""Object classes: household objects, clothing and instruments."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, Builder, Solid

ACROSS = (0.0, 90.0, 0.0)  # rotates the z axis onto the x axis


def teapot(rng: np.random.Generator) -> Solid:
    """A round pot on a foot, its spout to the right and its handle to the left, under a lid with a knob."""
    b = Builder()
    wide, high = rng.uniform(0.42, 0.47), rng.uniform(0.36, 0.4)
    z, ring = high + 0.03, rng.uniform(0.19, 0.22)
    b.ellipsoid((wide, wide, high), at=(0, 0, z))
    b.cone(0.28, 0.24, 0.08, at=(0, 0, 0.08), blend=0.04)
    tip = (0.0, -wide - rng.uniform(0.22, 0.28), z + rng.uniform(0.16, 0.26))
    if rng.random() < 0.5:  # a straight spout, or one that bends upward
        b.limb((0, -wide + 0.08, z - 0.06), tip, 0.15, 0.085, blend=0.1)
    else:
        knee = (0.0, tip[1] + 0.12, z - 0.08)
        b.limb((0, -wide + 0.12, z - 0.12), knee, 0.14, 0.11, blend=0.08)
        b.limb(knee, tip, 0.11, 0.08, blend=0.03)
    b.torus(ring, 0.07, at=(0, wide + 0.02, z + 0.02), turn=ACROSS, blend=0.04)
    b.group()
    level = rng.uniform(0.68, 0.76) * high
    b.ellipsoid((wide + 0.035, wide + 0.035, high + 0.035), at=(0, 0, z), paint=ACCENT)
    b.box((1, 1, 1), at=(0, 0, z + level - 1), paint=None, cut=True)
    b.sphere(rng.uniform(0.09, 0.12), at=(0, 0, z + high + 0.1), paint=ACCENT, blend=0.03)
    return b.solid()


def mug(rng: np.random.Generator) -> Solid:
    """A mug of cocoa with a big round or square handle, some with marshmallows."""
    b = Builder()
    kind, sweets, square = rng.integers(0, 2), rng.integers(0, 3), rng.random() < 0.4
    wide, high = rng.uniform(0.42, 0.46), rng.uniform(0.86, 0.96)
    low = wide - (0.0 if kind else rng.uniform(0.06, 0.1))
    b.cone(low - 0.04, wide - 0.04, high / 2 - 0.04, at=(0, 0, high / 2), round=0.04)
    b.cylinder(wide - 0.11, 0.1, at=(0, 0, high), paint=None, cut=True)
    b.group()
    b.cylinder(wide - 0.09, 0.1, at=(0, 0, high - 0.16), paint="brown")
    spots = ((0.1, -0.12), (-0.12, 0.1))
    for x, y in spots[:sweets]:
        b.cylinder(0.08, 0.05, at=(x, y, high - 0.03), turn=(25, 30 * x, 0), paint="white", round=0.03)
    reach = rng.uniform(0.2, 0.23)
    if square:
        out = wide + 0.24
        for z in (high / 2 - reach, high / 2 + reach):
            b.limb((0, wide - 0.12, z), (0, out, z), 0.075, paint=ACCENT)
        b.limb((0, out, high / 2 - reach), (0, out, high / 2 + reach), 0.075, paint=ACCENT)
    else:
        b.torus(reach, 0.08, at=(0, wide + 0.02, high / 2), turn=ACROSS, paint=ACCENT)
    return b.solid()


def guitar(rng: np.random.Generator) -> Solid:
    """An upright guitar: a waisted body with a sound hole, a neck, and a head with pegs."""
    b = Builder()
    big, small = rng.uniform(0.42, 0.46), rng.uniform(0.31, 0.35)
    deep, pegs = rng.uniform(0.1, 0.13), rng.integers(2, 4)
    upper = big + rng.uniform(0.45, 0.5)
    b.cylinder(big - 0.04, deep - 0.04, at=(0, 0, big), turn=ACROSS, round=0.04)
    b.cylinder(small - 0.04, deep - 0.04, at=(0, 0, upper), turn=ACROSS, round=0.04, blend=0.2)
    for x in (deep + 1, -deep - 1):  # remove the bulges of the blend
        b.box((1, 1, 2), at=(x, 0, 0), paint=None, cut=True)
    if rng.random() < 0.4:  # cutaway for the hand
        b.sphere(0.2, at=(0, small, upper + 0.26), paint=None, cut=True)
    b.group()
    b.cylinder(rng.uniform(0.14, 0.17), 0.03, at=(deep + 0.01, 0, upper - 0.18), turn=ACROSS, paint="black")
    b.box((0.03, 0.16, 0.055), at=(deep + 0.01, 0, big - 0.2), paint="black", round=0.01)
    head = upper + small + rng.uniform(0.3, 0.38)
    b.box((0.06, 0.07, (head - upper) / 2), at=(deep, 0, (head + upper) / 2), paint=ACCENT, round=0.02)
    half = 0.07 * pegs
    b.box(
        (0.06, 0.1, half), at=(deep - 0.01, 0, head + half - 0.04), turn=(0, -8, 0), paint=ACCENT, round=0.02
    )
    for i in range(pegs):
        z = head + 2 * half * (i + 0.5) / pegs - 0.04
        b.sphere(0.075, at=(deep - 0.01, 0.15, z), paint="white", mirror=True)
    return b.solid()


def hat(rng: np.random.Generator) -> Solid:
    """A brimmed hat with a ribbon; flat, domed or dented on top, some with a feather or a bow."""
    b = Builder()
    kind, extra = rng.integers(0, 3), rng.integers(0, 3)
    brim, wide, high = rng.uniform(0.66, 0.72), rng.uniform(0.38, 0.42), rng.uniform(0.62, 0.7)
    if kind == 0:
        b.cone(wide - 0.04, wide - 0.02, high / 2 - 0.02, at=(0, 0, high / 2), round=0.04)
    elif kind == 1:
        b.ellipsoid((wide, wide, high - 0.2), at=(0, 0, 0.2))
        b.box((1, 1, 1), at=(0, 0, -0.9), paint=None, cut=True)
        b.cylinder(wide, 0.1, at=(0, 0, 0.12))
    else:
        b.cone(wide - 0.04, wide - 0.14, high / 2 - 0.04, at=(0, 0, high / 2), round=0.06)
        b.ellipsoid((0.5, 0.13, 0.13), at=(0.06, 0, high + 0.03), turn=(0, 12, 0), paint=None, cut=True)
    b.cylinder(brim - 0.05, 0.01, at=(0, 0, 0.06), round=0.05, blend=0.06)
    b.group()
    b.cone(
        wide + 0.03, wide + (0.035 if kind == 0 else 0.02), 0.08, at=(0, 0, 0.18), paint=ACCENT, round=0.015
    )
    if extra == 1:
        b.limb((0.08, wide, 0.16), (-0.12, wide + 0.08, 0.54), 0.06, 0.12, paint="white")
    elif extra == 2:
        b.limb((0.06, wide + 0.04, 0.2), (0.22, wide - 0.03, 0.26), 0.07, 0.1, paint=ACCENT)
        b.limb((-0.06, wide + 0.04, 0.2), (-0.22, wide - 0.03, 0.26), 0.07, 0.1, paint=ACCENT)
    return b.solid()


def candle(rng: np.random.Generator) -> Solid:
    """A stout candle that drips, with its flame, in a holder with a ring for a finger."""
    b = Builder()
    wide, high = rng.uniform(0.22, 0.26), rng.uniform(0.76, 0.86)
    dish, drips = rng.uniform(0.4, 0.45), rng.integers(2, 5)
    b.cylinder(wide - 0.03, high / 2, at=(0, 0, high / 2 + 0.08), round=0.03)
    top = high + 0.06
    for i in range(drips):
        angle = np.radians(35 + 360 * i / drips + rng.uniform(-15, 15))
        x, y = (wide - 0.01) * np.cos(angle), (wide - 0.01) * np.sin(angle)
        b.limb((x, y, top), (x, y, top - rng.uniform(0.12, 0.4)), 0.065, 0.08, blend=0.04)
    b.group()
    b.cone(dish - 0.1, dish, 0.05, at=(0, 0, 0.08), paint=ACCENT, round=0.035)
    b.torus(0.14, 0.065, at=(0, dish + 0.13, 0.16), turn=ACROSS, paint=ACCENT)
    b.group()
    tall = rng.uniform(0.22, 0.28)
    b.cylinder(0.055, 0.1, at=(0, 0, high + 0.12), paint="black")
    b.limb((0, 0, high + 0.33), (0, 0, high + 0.33 + tall), 0.15, 0.05, paint="orange")
    b.sphere(0.135, at=(0, 0, high + 0.26), paint="yellow")
    return b.solid()


def umbrella(rng: np.random.Generator) -> Solid:
    """An open umbrella with a scalloped edge, on a stick with a crook."""
    b = Builder()
    wide, high, ribs = rng.uniform(0.7, 0.76), rng.uniform(0.44, 0.52), int(rng.integers(6, 9))
    long, crook = rng.uniform(0.58, 0.66), rng.uniform(0.13, 0.16)
    b.ellipsoid((wide, wide, high))
    b.box((1, 1, 1), at=(0, 0, -1), paint=None, cut=True)
    b.ellipsoid((wide - 0.14, wide - 0.14, high - 0.2), paint=None, cut=True)
    half = wide * np.sin(np.pi / ribs) - 0.05  # of a scallop's width
    bow = (half**2 + 0.1**2) / 0.2  # radius of an arc 0.1 high
    b.limb((0.3, 0, 0.1 - bow), (1.0, 0, 0.1 - bow), bow, repeat=ribs, paint=None, cut=True)
    b.group()
    at = ((wide - 0.05) * np.cos(np.pi / ribs), (wide - 0.05) * np.sin(np.pi / ribs), 0.02)
    b.sphere(0.065, at=at, paint=ACCENT, repeat=ribs)
    b.limb((0, 0, high - 0.1), (0, 0, high + 0.12), 0.09, 0.06, paint=ACCENT)
    b.group()
    b.torus(crook, 0.07, at=(0, crook, -long), turn=ACROSS, paint=ACCENT)
    b.box((0.3, 0.6, 0.3), at=(0, crook, 0.3 - long), paint=None, cut=True)
    b.limb((0, 0, -long), (0, 0, high - 0.1), 0.07, paint=ACCENT)
    b.limb((0, 2 * crook, -long), (0, 2 * crook, -long + 0.06), 0.07, paint=ACCENT)
    return b.solid()


def bell(rng: np.random.Generator) -> Solid:
    """A hand bell with a flared lip, its clapper below, and a handle with a knob or a loop."""
    b = Builder()
    lip, waist, high = rng.uniform(0.46, 0.52), rng.uniform(0.27, 0.31), rng.uniform(0.62, 0.7)
    b.cone(waist + 0.1, waist, high / 2, at=(0, 0, high / 2))
    b.ellipsoid((waist, waist, 0.2), at=(0, 0, high), blend=0.05)
    b.cone(lip, waist, 0.12, at=(0, 0, 0.17), blend=0.12)
    b.torus(lip - 0.03, 0.08, at=(0, 0, 0.06), blend=0.03)
    b.group()
    b.sphere(0.16, at=(0, 0, -0.05), paint="black")
    top = high + 0.16
    if rng.random() < 0.6:
        end = top + rng.uniform(0.3, 0.36)
        b.limb((0, 0, top - 0.06), (0, 0, end), 0.09, 0.075, paint=ACCENT)
        b.sphere(rng.uniform(0.12, 0.15), at=(0, 0, end), paint=ACCENT, blend=0.04)
    else:
        ring = rng.uniform(0.16, 0.18)
        b.torus(ring, 0.075, at=(0, 0, top + ring + 0.03), turn=ACROSS, paint=ACCENT)
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("teapot", teapot, (4, 1), "cyan", "lid", "orange"),
    ObjectClass("mug", mug, (0, 3), "red", "handle", "white"),
    ObjectClass("guitar", guitar, (4, 0), "orange", "neck", "brown"),
    ObjectClass("hat", hat, (0, 3), "purple", "ribbon", "yellow"),
    ObjectClass("candle", candle, (2, 4), "white", "holder", "blue"),
    ObjectClass("umbrella", umbrella, (4, 2), "pink", "handle", "purple"),
    ObjectClass("bell", bell, (0, 3), "yellow", "handle", "red"),
)
