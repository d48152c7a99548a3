"""Object classes: buildings."""

from __future__ import annotations

import numpy as np

from triplaneturbo.toyworld.scene.object_class import ObjectClass
from triplaneturbo.toyworld.scene.solid import ACCENT, MAIN, Builder, Solid

_ALONG_X = (0.0, 90.0, 0.0)  # rotates the z axis onto the x axis


def house(rng: np.random.Generator) -> Solid:
    """Four walls under a gable roof, with a door, windows and a chimney."""
    b = Builder()
    x, y, wall = rng.uniform(0.42, 0.48), rng.uniform(0.42, 0.46), rng.uniform(0.68, 0.76)
    gable_front, side = rng.random() < 0.5, float(rng.choice([-1.0, 1.0]))
    windows, round_window = int(rng.integers(1, 3)), rng.random() < 0.5
    roof = rng.uniform(0.38, 0.43)
    b.box((x, y, wall / 2), at=(0, 0, wall / 2), paint=MAIN)
    b.group()
    along, across = (x, y) if gable_front else (y, x)
    turn = (0, 0, 0 if gable_front else 90)
    b.prism(along, across, 0.9 * roof + 0.1, at=(0, 0, wall - 0.1), turn=turn, paint=MAIN)
    b.group()
    b.prism(along + 0.07, across + 0.1, roof, at=(0, 0, wall), turn=turn, paint=ACCENT)
    b.prism(1.0, across - 0.05, 0.82 * roof, at=(0, 0, wall - 0.04), turn=turn, paint=ACCENT, cut=True)
    b.group()
    at = (-0.16, 0.22 * side, wall + 0.75 * roof)
    b.box((0.08, 0.08, 0.2), at=at, paint="grey")
    b.group()
    door = 0.0 if windows == 2 else -0.18 * side
    b.box((0.04, 0.1, 0.2), at=(x, door, 0.2), paint="brown")
    places = (-0.29, 0.29) if windows == 2 else (0.18 * side,)
    for place in places:
        b.box((x + 0.04, 0.08 if windows == 2 else 0.1, 0.1), at=(0, place, 0.43), paint="cyan")
    if gable_front and round_window:
        b.cylinder(0.09, 0.04, at=(x, 0, wall + 0.12), turn=_ALONG_X, paint="cyan")
    b.box((0.11, y + 0.04, 0.1), at=(0, 0, 0.43), paint="cyan")
    return b.solid()


def castle(rng: np.random.Generator) -> Solid:
    """Battlements between four corner towers with pointed roofs, a gate, and a keep in the middle."""
    b = Builder()
    half, wall = rng.uniform(0.37, 0.4), rng.uniform(0.38, 0.46)
    tower, thick, keep = rng.uniform(0.54, 0.62), rng.uniform(0.13, 0.16), rng.uniform(0.75, 0.81)
    square, windows = rng.random() < 0.5, rng.random() < 0.5
    b.box((half, half, wall / 2), at=(0, 0, wall / 2), paint=MAIN)
    for place in (-0.125, 0.125):
        b.box((0.07, 0.07, 0.12), at=(half - 0.06, place, wall), paint=MAIN, repeat=4)
    b.cylinder(thick, tower / 2, at=(half, half, tower / 2), paint=MAIN, repeat=4)
    b.cone(thick + 0.06, 0.01, 0.15, at=(half, half, tower + 0.15), paint=ACCENT, repeat=4)
    b.group()
    if square:
        b.box((0.18, 0.18, keep / 2), at=(0, 0, keep / 2), paint=MAIN)
        b.box((0.22, 0.22, 0.03), at=(0, 0, keep), paint=ACCENT, round=0.03)
        b.pyramid(0.24, 0.24, 0.34, at=(0, 0, keep + 0.03), paint=ACCENT)
    else:
        b.cylinder(0.2, keep / 2, at=(0, 0, keep / 2), paint=MAIN)
        b.cone(0.27, 0.01, 0.17, at=(0, 0, keep + 0.17), paint=ACCENT)
    b.group()
    b.box((0.04, 0.11, 0.1), at=(half, 0, 0.1), paint="brown")
    b.cylinder(0.11, 0.04, at=(half, 0, 0.2), turn=_ALONG_X, paint="brown")
    if windows:
        front = half + 0.85 * thick
        b.limb((front, half, 0.52 * tower), (front, half, 0.7 * tower), 0.065, paint="black", mirror=True)
    return b.solid()


def lighthouse(rng: np.random.Generator) -> Solid:
    """A tapering banded tower on a rock, with a gallery, a lamp and a domed cap."""
    b = Builder()
    foot, neck = rng.uniform(0.28, 0.32), rng.uniform(0.18, 0.2)
    bands, pointed = int(rng.integers(2, 4)), rng.random() < 0.5
    high = rng.uniform(1.04, 1.12)
    b.ellipsoid((rng.uniform(0.36, 0.42), rng.uniform(0.36, 0.42), 0.14), at=(0, 0, -0.02), paint="grey")
    b.box((1, 1, 0.5), at=(0, 0, -0.52), paint="grey", cut=True)
    b.group()
    b.cone(foot, neck, high / 2, at=(0, 0, high / 2), paint=MAIN)
    step, thick = (high - 0.32) / bands, 0.15 if bands == 2 else 0.125
    for i in range(bands):
        low = 0.36 + (i + 0.3) * step - thick / 2
        bottom, top = (foot + (neck - foot) * z / high + 0.03 for z in (low, low + thick))
        b.cone(bottom, top, thick / 2, at=(0, 0, low + thick / 2), paint=ACCENT)
    b.group()
    b.cylinder(neck + 0.07, 0.03, at=(0, 0, high), paint=MAIN, round=0.02)
    b.cylinder(neck - 0.03, 0.12, at=(0, 0, high + 0.12), paint="yellow")
    if pointed:
        b.cone(neck + 0.04, 0.03, 0.11, at=(0, 0, high + 0.33), paint="black")
    else:
        b.group()
        b.ellipsoid((neck + 0.03, neck + 0.03, 0.22), at=(0, 0, high + 0.22), paint="black")
        b.box((1, 1, 0.5), at=(0, 0, high - 0.3), paint="black", cut=True)
        b.sphere(0.06, at=(0, 0, high + 0.44), paint="black")
    b.group()
    b.box((0.06, 0.09, 0.15), at=(foot - 0.04, 0, 0.2), paint="brown")
    return b.solid()


def windmill(rng: np.random.Generator) -> Solid:
    """A tapering tower with a cap that carries four sails."""
    b = Builder()
    foot, neck, high = rng.uniform(0.3, 0.36), rng.uniform(0.19, 0.23), rng.uniform(0.74, 0.82)
    start, pointed, two = float(rng.choice([25.0, 45.0, 60.0])), rng.random() < 0.5, rng.random() < 0.5
    reach, board = rng.uniform(0.52, 0.58), rng.uniform(0.085, 0.11)
    b.cone(foot, neck, high / 2, at=(0, 0, high / 2), paint=MAIN)
    b.group()
    if pointed:
        b.cone(neck + 0.06, 0.05, 0.15, at=(0, 0, high + 0.14), paint="brown")
    else:
        b.ellipsoid((neck + 0.05, neck + 0.05, 0.26), at=(0, 0, high), paint="brown")
        b.box((1, 1, 0.5), at=(0, 0, high - 0.52), paint="brown", cut=True)
    b.group()
    x, z = neck + 0.16, high + 0.04
    b.limb((0, 0, z), (x, 0, z), 0.09, paint="brown")
    for quarter in range(4):
        angle = np.radians(start + 90.0 * quarter)
        out, aside = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
        y0, z0 = out * (0.14 + reach) / 2 + aside * board * 0.6
        b.box((0.02, board - 0.03, (reach - 0.14) / 2), at=(x, y0, z + z0), turn=(np.degrees(angle), 0, 0),
              paint=ACCENT, round=0.03)  # fmt: skip
        y1, z1 = out * (reach - 0.04)
        b.limb((x, 0, z), (x, y1, z + z1), 0.05, paint="brown")
    b.group()
    b.box((0.06, 0.1, 0.17), at=(foot - 0.04, 0, 0.17), paint="brown")
    for height in (0.36, 0.6)[: 1 + two]:
        radius = foot + (neck - foot) * height / high
        b.cylinder(0.085, 0.04, at=(0, radius - 0.01, height), turn=(90, 0, 0), paint="cyan", mirror=True)
    return b.solid()


OBJECT_CLASSES = (
    ObjectClass("house", house, (3, 0), "yellow", "roof", "red"),
    ObjectClass("castle", castle, (0, 2), "grey", "roofs", "blue"),
    ObjectClass("lighthouse", lighthouse, (4, 0), "white", "bands", "red"),
    ObjectClass("windmill", windmill, (1, 2), "white", "sails", "red"),
)
