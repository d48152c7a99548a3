"""Object classes: vehicles."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, MAIN, Builder, Solid

_ALONG_X, _ALONG_Y = (0.0, 90.0, 0.0), (90.0, 0.0, 0.0)  # rotate the z axis onto x or y


def rocket(rng: np.random.Generator) -> Solid:
    """A plump body with a pointed nose, portholes, three or four swept fins and a flame."""
    b = Builder()
    radius, fins, windows = rng.uniform(0.28, 0.33), int(rng.integers(3, 5)), int(rng.integers(1, 3))
    waist = rng.uniform(0.7, 0.85) * radius
    b.cone(waist, radius, 0.24, at=(0, 0, 0.34), paint=MAIN)
    b.ellipsoid((radius, radius, 0.8), at=(0, 0, 0.58), paint=MAIN)
    b.box((0.5, 0.5, 0.5), at=(0, 0, -0.4), paint=MAIN, cut=True)
    b.group()
    b.cone(0.2, 0.14, 0.06, at=(0, 0, 0.06), paint="black")
    b.limb((0, 0, 0.0), (0, 0, -0.14), 0.13, 0.07, paint="orange")
    b.group()
    out, low = rng.uniform(0.42, 0.5), rng.uniform(-0.04, 0.04)
    tilt = np.radians(180.0 if fins == 3 else 45.0)
    c, s = float(np.cos(tilt)), float(np.sin(tilt))
    at = (0.2 * c, 0.2 * s, 0.5)
    b.limb(at, (out * c, out * s, 0.16 + low), 0.07, paint=ACCENT, repeat=fins)
    b.limb((0.16 * c, 0.16 * s, 0.26), (out * c, out * s, 0.16 + low), 0.07, paint=ACCENT, repeat=fins)
    b.limb((out * c, out * s, 0.16 + low), (out * c, out * s, low), 0.07, paint=ACCENT, repeat=fins)
    b.group()
    high = 0.78 if windows == 1 else 0.86
    size = 0.13 if windows == 1 else 0.105
    for z in (high, 0.54)[:windows]:
        x = radius * float(np.sqrt(1 - ((z - 0.58) / 0.8) ** 2))
        b.cylinder(size, 0.06, at=(x - 0.02, 0, z), turn=_ALONG_X, paint="grey", repeat=2)
        b.sphere(size * 0.72, at=(x + 0.01, 0, z), paint="cyan", repeat=2)
    return b.solid()


def car(rng: np.random.Generator) -> Solid:
    """A rounded body on four wheels, glass all around and a roof on top."""
    b = Builder()
    half, wheel = rng.uniform(0.6, 0.67), rng.uniform(0.155, 0.19)
    back, boxy = rng.uniform(-0.16, 0.0), rng.random() < 0.5
    b.box((half - 0.1, 0.2, 0.06), at=(0, 0, 0.29), paint=MAIN, round=0.1)
    b.box((half + 0.03, 0.22, 0.02), at=(0, 0, 0.2), paint="grey", round=0.035)
    b.group()
    if boxy:
        length = rng.uniform(0.32, 0.37)
        b.box((length - 0.08, 0.17, 0.12), at=(back, 0, 0.48), paint="cyan", round=0.08)
        b.group()
        b.box((length - 0.04, 0.22, 0.03), at=(back, 0, 0.68), paint=ACCENT, round=0.05)
        b.box((0.06, 0.265, 0.14), at=(back, 0, 0.5), paint=MAIN, round=0.01)
    else:
        length = rng.uniform(0.4, 0.45)
        b.ellipsoid((length, 0.29, 0.31), at=(back, 0, 0.4), paint="cyan")
        b.ellipsoid((0.1, 0.32, 0.32), at=(back, 0, 0.4), paint=MAIN)
        b.group()
        b.ellipsoid((length + 0.04, 0.33, 0.35), at=(back, 0, 0.4), paint=ACCENT)
        b.box((1, 1, 0.5), at=(0, 0, 0.07), paint=ACCENT, cut=True)
    b.group()
    for x in (-0.55 * half, 0.58 * half):
        b.cylinder(
            wheel - 0.03, 0.05, at=(x, 0.3, wheel), turn=_ALONG_Y, paint="black", mirror=True, round=0.03
        )
        b.cylinder(0.5 * wheel, 0.1, at=(x, 0.3, wheel), turn=_ALONG_Y, paint="white", mirror=True)
    b.sphere(0.08, at=(half - 0.02, 0.18, 0.34), paint="yellow", mirror=True)
    b.sphere(0.07, at=(0.02 - half, 0.19, 0.34), paint="red", mirror=True)
    return b.solid()


def truck(rng: np.random.Generator) -> Solid:
    """A big load behind a driver's cab, on two or three axles."""
    b = Builder()
    wheel, axles = rng.uniform(0.145, 0.17), int(rng.integers(2, 4))
    arched, nosed = rng.random() < 0.5, rng.random() < 0.5
    start, top = rng.uniform(-0.68, -0.62), rng.uniform(0.83, 0.89)
    b.box((0.64, 0.2, 0.05), at=(-0.0, 0, 0.22), paint="grey")
    b.group()
    end = 0.1
    middle, half = (start + end) / 2, (end - start) / 2
    if arched:
        b.box((half - 0.02, 0.26, 0.17), at=(middle, 0, 0.42), paint=MAIN, round=0.02)
        b.cylinder(0.28, half, at=(middle, 0, top - 0.28), turn=_ALONG_X, paint=MAIN)
    else:
        b.box(
            (half - 0.03, 0.25, (top - 0.23) / 2 - 0.03),
            at=(middle, 0, (top + 0.23) / 2),
            paint=MAIN,
            round=0.03,
        )
    b.group()
    cab = 0.68 if nosed else 0.74
    b.box(
        (0.2, 0.21, (cab - 0.18) / 2 - 0.06),
        at=(0.36 if nosed else 0.42, 0, (cab + 0.18) / 2),
        paint=ACCENT,
        round=0.06,
    )
    if nosed:
        b.box((0.1, 0.18, 0.09), at=(0.6, 0, 0.32), paint=ACCENT, round=0.06)
    b.group()
    x = 0.36 if nosed else 0.42
    b.box((0.04, 0.17, 0.07), at=(x + 0.24, 0, cab - 0.17), paint="cyan", round=0.02)
    b.box((0.09, 0.28, 0.07), at=(x + 0.04, 0, cab - 0.17), paint="cyan", round=0.02)
    front = 0.75 if nosed else 0.67
    b.sphere(0.075, at=(front, 0.16, 0.34), paint="yellow", mirror=True)
    b.box((0.04, 0.24, 0.03), at=(front, 0, 0.2), paint="grey", round=0.03)
    b.group()
    for x in (0.44, -0.4, -0.02)[:axles] if axles == 2 else (0.44, -0.14, -0.5):
        b.cylinder(
            wheel - 0.03, 0.05, at=(x, 0.24, wheel), turn=_ALONG_Y, paint="black", mirror=True, round=0.03
        )
        b.cylinder(0.5 * wheel, 0.1, at=(x, 0.24, wheel), turn=_ALONG_Y, paint="white", mirror=True)
    return b.solid()


def train(rng: np.random.Generator) -> Solid:
    """A steam locomotive: boiler, chimney, dome, cab and coupled wheels."""
    b = Builder()
    boiler, top = rng.uniform(0.19, 0.23), rng.uniform(0.84, 0.92)
    big, domed, flared = rng.random() < 0.5, rng.random() < 0.6, rng.random() < 0.5
    axis = 0.31 + boiler
    b.box((0.6, 0.2, 0.06), at=(0, 0, 0.26), paint="black")
    b.pyramid(0.18, 0.27, 0.3, at=(0.58, 0, 0.05), paint="grey")
    b.group()
    b.cylinder(boiler, 0.38, at=(0.16, 0, axis), turn=_ALONG_X, paint=MAIN)
    b.cylinder(boiler + 0.02, 0.05, at=(0.51, 0, axis), turn=_ALONG_X, paint="black", round=0.01)
    b.sphere(0.09, at=(0.57, 0, axis), paint="yellow")
    b.group()
    b.box((0.2, 0.23, (top - 0.26) / 2), at=(-0.41, 0, (top + 0.26) / 2), paint=MAIN, round=0.02)
    b.box((0.26, 0.28, 0.03), at=(-0.41, 0, top + 0.02), paint=MAIN, round=0.03)
    b.box((0.09, 0.28, 0.08), at=(-0.41, 0, top - 0.18), paint="cyan", round=0.01)
    b.group()
    chimney = axis + boiler
    b.cone(0.08, 0.14 if flared else 0.09, 0.13, at=(0.37, 0, chimney + 0.08), paint="black")
    if not flared:
        b.cylinder(0.12, 0.03, at=(0.37, 0, chimney + 0.19), paint="black", round=0.01)
    for x in (0.08,) if domed else (0.16, -0.08):
        b.sphere(0.115 if domed else 0.085, at=(x, 0, chimney + 0.02), paint="yellow")
    b.group()
    wheels = (
        ((-0.38, 0.21), (0.02, 0.15), (0.36, 0.15)) if big else ((-0.41, 0.17), (-0.04, 0.17), (0.33, 0.17))
    )
    for x, radius in wheels:
        b.cylinder(radius, 0.07, at=(x, 0.25, radius), turn=_ALONG_Y, paint=ACCENT, mirror=True)
    b.box((0.4, 0.03, 0.03), at=(-0.03, 0.32, 0.165), paint="grey", round=0.025, mirror=True)
    return b.solid()


def airplane(rng: np.random.Generator) -> Solid:
    """A tapering fuselage with broad wings; a propeller on the nose, or jet engines."""
    b = Builder()
    thick, sweep, propeller = rng.uniform(0.17, 0.2), rng.uniform(6.0, 20.0), rng.random() < 0.5
    span, chord, low = rng.uniform(0.7, 0.78), rng.uniform(0.18, 0.21), rng.uniform(-0.08, 0.0)
    b.limb((0.38, 0, 0), (-0.56, 0, 0.08), thick, 0.1, paint=MAIN)
    b.group()
    lean = np.radians(sweep)
    middle = (0.12 - span / 2 * float(np.sin(lean)), span / 2 * float(np.cos(lean)), low)
    b.box(
        (chord - 0.04, span / 2 - 0.04, 0.02),
        at=middle,
        turn=(0, 0, sweep),
        paint=ACCENT,
        round=0.04,
        mirror=True,
    )
    b.group()
    b.box((0.09, 0.28, 0.02), at=(-0.58, 0, 0.1), paint=MAIN, round=0.035)
    b.box((0.08, 0.02, 0.18), at=(-0.6, 0, 0.26), turn=(0, -18, 0), paint=MAIN, round=0.035)
    b.group()
    b.ellipsoid((0.16, 0.75 * thick, 0.12), at=(0.36, 0, 0.7 * thick), paint="cyan")
    windows = int(rng.integers(2, 4))
    for i in range(windows):
        x = 0.16 - 0.2 * i
        radius = thick + (0.1 - thick) * (0.38 - x) / 0.94
        b.sphere(0.07, at=(x, radius * 0.9, 0.09 + 0.02 * i), paint="cyan", mirror=True)
    b.group()
    if propeller:
        nose = 0.38 + thick
        b.sphere(0.1, at=(nose, 0, 0), paint="yellow")
        b.box((0.02, 0.03, 0.2), at=(nose + 0.02, 0, 0), turn=(35, 0, 0), paint="black", round=0.035)
    else:
        b.limb((0.2, 0.34, low - 0.1), (-0.06, 0.34, low - 0.1), 0.1, paint="grey", mirror=True)
    return b.solid()


def sailboat(rng: np.random.Generator) -> Solid:
    """A round hull under one or two triangular sails."""
    b = Builder()
    two, flag = rng.random() < 0.55, rng.random() < 0.5
    half, deep, wide = rng.uniform(0.6, 0.67), rng.uniform(0.33, 0.38), rng.uniform(0.28, 0.32)
    high = rng.uniform(0.84, 0.94)
    b.ellipsoid((half, wide, deep), paint=MAIN)
    b.box((2, 2, 0.5), at=(0, 0, 0.5), paint=MAIN, cut=True)
    b.box((0.5, 2, 2), at=(-0.5 - 0.8 * half, 0, 0), paint=MAIN, cut=True)
    b.group()
    mast = 0.08 if two else 0.2
    b.limb((mast, 0, -0.05), (mast, 0, high - 0.02), 0.06, paint="brown")
    b.group()
    aft = 0.56 if two else 0.7
    b.prism(0.065, aft, high - 0.17, at=(mast, 0, 0.15), turn=(0, 0, 90), paint=ACCENT)
    b.box((1, 1, 2), at=(mast + 1, 0, 0), paint=ACCENT, cut=True)
    if two:
        b.group()
        b.prism(0.065, 0.44, 0.82 * high - 0.17, at=(mast, 0, 0.15), turn=(0, 0, 90), paint=ACCENT)
        b.box((1, 1, 2), at=(mast - 1, 0, 0), paint=ACCENT, cut=True)
    if flag:
        b.group()
        b.box((0.09, 0.03, 0.05), at=(mast - 0.08, 0, high + 0.04), paint="yellow", round=0.02)
    return b.solid()


def submarine(rng: np.random.Generator) -> Solid:
    """A fat cigar with a tower, a periscope, portholes, tail fins and a propeller."""
    b = Builder()
    fat, ports = rng.uniform(0.23, 0.27), int(rng.integers(2, 4))
    tower, square = rng.uniform(-0.04, 0.1), rng.random() < 0.5
    b.limb((0.4, 0, 0), (-0.5, 0, 0), fat, 0.12, paint=MAIN)
    b.limb((0.4, 0, 0), (-0.15, 0, 0), fat, paint=MAIN, blend=0.1)
    b.group()
    if square:
        b.box((0.15, 0.09, 0.14), at=(tower, 0, fat + 0.08), paint=ACCENT, round=0.05)
    else:
        b.cone(0.21, 0.15, 0.13, at=(tower, 0, fat + 0.1), paint=ACCENT, round=0.03)
    b.group()
    top = fat + rng.uniform(0.42, 0.47)
    b.limb((tower, 0, fat), (tower, 0, top), 0.055, paint="grey")
    b.limb((tower, 0, top), (tower + 0.13, 0, top), 0.055, paint="grey")
    b.group()
    b.box((0.07, 0.02, 0.22), at=(-0.52, 0, 0), paint=MAIN, round=0.035)
    b.box((0.07, 0.22, 0.02), at=(-0.52, 0, 0), paint=MAIN, round=0.035)
    b.group()
    b.limb((-0.5, 0, 0), (-0.72, 0, 0), 0.06, paint="grey")
    for angle in (45, -45):
        b.box((0.02, 0.04, 0.15), at=(-0.74, 0, 0), turn=(angle, 0, 0), paint="grey", round=0.035)
    b.group()
    for i in range(ports):
        x = 0.4 - (0.32 if ports == 2 else 0.25) * i
        b.cylinder(0.1, 0.05, at=(x, fat, 0.02), turn=_ALONG_Y, paint="grey", mirror=True)
        b.sphere(0.075, at=(x, fat + 0.02, 0.02), paint="cyan", mirror=True)
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("rocket", rocket, (2, 0), "white", "fins", "red"),
    ObjectClass("car", car, (0, 2), "red", "roof", "white"),
    ObjectClass("truck", truck, (1, 0), "green", "cab", "orange"),
    ObjectClass("train", train, (2, 4), "blue", "wheels", "red"),
    ObjectClass("airplane", airplane, (3, 5), "white", "wings", "blue"),
    ObjectClass("sailboat", sailboat, (0, 3), "red", "sail", "white"),
    ObjectClass("submarine", submarine, (4, 0), "yellow", "tower", "orange"),
)
