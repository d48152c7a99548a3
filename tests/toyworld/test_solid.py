"""Solids against their NumPy reference, and the invariants of every object class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from tests.helpers import solids_in_numpy as slow
from triplaneturbo.render.cameras import orbit
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.palette import ACCENT, MAIN, NAMES, paint
from triplaneturbo.toyworld.scene.solid import RADIUS, Builder, Solid
from triplaneturbo.toyworld.scene.solids import SHAPES, solid_of
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS
from triplaneturbo.toyworld.scene.view_renderer import mesh, see

AT, TURN = (0.3, -0.2, 0.1), (20.0, -35.0, 70.0)
START, END = np.array([0.1, -0.3, 0.2]), np.array([-0.4, 0.5, 0.6])

Case = tuple[Callable[[Builder], None], slow.Shape]


def points(count: int = 4000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1.5, 1.5, (count, 3))


def built(*steps: Callable[[Builder], None]) -> Solid:
    b = Builder()
    for step in steps:
        step(b)
    return b.solid()


PRIMITIVES: dict[str, Case] = {
    "sphere": (lambda b: b.sphere(0.5), lambda p: np.linalg.norm(p, axis=1) - 0.5),
    "ellipsoid": (lambda b: b.ellipsoid((0.7, 0.4, 0.2)), slow.ellipsoid((0.7, 0.4, 0.2))),
    "box": (lambda b: b.box((0.6, 0.3, 0.4)), slow.box((0.6, 0.3, 0.4))),
    "cylinder": (lambda b: b.cylinder(0.4, 0.6), slow.cone(0.4, 0.4, 0.6)),
    "cone": (lambda b: b.cone(0.6, 0.2, 0.5), slow.cone(0.6, 0.2, 0.5)),
    "tip": (lambda b: b.cone(0.6, 0.0, 0.5), slow.cone(0.6, 0.0, 0.5)),
    "funnel": (lambda b: b.cone(0.2, 0.7, 0.3), slow.cone(0.2, 0.7, 0.3)),
    "torus": (lambda b: b.torus(0.6, 0.2), slow.torus(0.6, 0.2)),
    "prism": (lambda b: b.prism(0.6, 0.4, 0.5), slow.prism(0.6, 0.4, 0.5)),
    "pyramid": (lambda b: b.pyramid(0.6, 0.4, 0.7), slow.pyramid(0.6, 0.4, 0.7)),
}


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives(name: str) -> None:
    build, twin = PRIMITIVES[name]
    np.testing.assert_allclose(built(build).distance(points()), twin(points()), atol=1e-9)


def test_primitives_are_rotated_moved_and_rounded() -> None:
    solid = built(lambda b: b.box((0.5, 0.3, 0.2), at=AT, turn=TURN, round=0.07))
    twin = slow.rounded(slow.moved(slow.box((0.5, 0.3, 0.2)), AT, TURN), 0.07)
    np.testing.assert_allclose(solid.distance(points()), twin(points()), atol=1e-9)


@pytest.mark.parametrize(("radius", "end_radius"), [(0.2, 0.2), (0.25, 0.1), (0.05, 0.3)])
def test_limbs(radius: float, end_radius: float) -> None:
    solid = built(lambda b: b.limb(tuple(START), tuple(END), radius, end_radius))
    twin = slow.limb(START, END, radius, end_radius)
    np.testing.assert_allclose(solid.distance(points(800)), twin(points(800)), atol=1e-6)


def balls() -> tuple[slow.Shape, slow.Shape]:
    return (
        lambda p: np.linalg.norm(p, axis=1) - 0.5,
        lambda p: np.linalg.norm(p - [0.4, 0.2, 0.1], axis=1) - 0.3,
    )


@pytest.mark.parametrize(
    ("how", "twin"),
    [
        ({}, slow.union),
        ({"cut": True}, slow.cut),
        ({"blend": 0.3}, lambda one, other: slow.blended(one, other, 0.3)),
    ],
)
def test_operations(how: dict, twin: Callable[..., slow.Shape]) -> None:
    solid = built(lambda b: b.sphere(0.5), lambda b: b.sphere(0.3, at=(0.4, 0.2, 0.1), **how))
    np.testing.assert_allclose(solid.distance(points()), twin(*balls())(points()), atol=1e-9)


def test_groups_are_independent() -> None:
    one, other = balls()
    third: slow.Shape = lambda p: np.linalg.norm(p - [-0.5, 0, 0], axis=1) - 0.35  # noqa: E731
    solid = built(
        lambda b: b.sphere(0.5),
        lambda b: b.group(),
        lambda b: b.sphere(0.35, at=(-0.5, 0, 0)),
        lambda b: b.sphere(0.3, at=(0.4, 0.2, 0.1), blend=0.4),
        lambda b: b.sphere(0.5, cut=True),
    )
    second = slow.cut(slow.blended(third, other, 0.4), one)
    np.testing.assert_allclose(solid.distance(points()), slow.union(one, second)(points()), atol=1e-9)


def test_mirrors_and_repetitions() -> None:
    solid = built(lambda b: b.box((0.2, 0.1, 0.3), at=(0.1, 0.4, 0), turn=(0, 25, 0), mirror=True))
    twin = slow.mirrored(slow.moved(slow.box((0.2, 0.1, 0.3)), (0.1, 0.4, 0), (0, 25, 0)))
    np.testing.assert_allclose(solid.distance(points()), twin(points()), atol=1e-9)
    solid = built(lambda b: b.ellipsoid((0.2, 0.15, 0.3), at=(0.5, 0.3, 0.1), repeat=7))
    twin = slow.repeated(slow.moved(slow.ellipsoid((0.2, 0.15, 0.3)), (0.5, 0.3, 0.1), (0, 0, 0)), 7)
    # Signs agree everywhere; a copy in the next sector may be a little nearer than the one in this.
    found, wanted = solid.distance(points()), twin(points())
    np.testing.assert_array_equal(found < 0, wanted < 0)
    inside = (found < 0.1) | (wanted < 0.1)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.02)
    assert inside.sum() > 100


def test_paint_comes_from_the_nearest_part_or_the_cut() -> None:
    solid = built(
        lambda b: b.sphere(0.5, paint="red"),
        lambda b: b.sphere(0.3, at=(0, 0, 0.6), paint="blue"),
        lambda b: b.box((1, 1, 0.1), at=(0, 0, -0.45), paint="green", cut=True),
        lambda b: b.box((0.1, 1, 1), at=(0.45, 0, 0), paint=None, cut=True),
        lambda b: b.group(),
        lambda b: b.sphere(0.1, at=(0, 0.5, 0), paint=ACCENT),
    )
    asked = np.array([[-0.5, 0, 0], [0, 0, 0.9], [0, 0, -0.36], [0.34, 0, 0], [0, 0.6, 0]])
    wanted = [paint("red"), paint("blue"), paint("green"), paint("red"), ACCENT]
    assert solid.paints(asked).tolist() == wanted


def test_solids_are_scaled_raised_repainted_and_combined() -> None:
    mixed = built(
        lambda b: b.box((0.3, 0.2, 0.1), at=(0.2, 0, 0.1), turn=TURN, round=0.05),
        lambda b: b.torus(0.5, 0.1, blend=0.2),
        lambda b: b.limb((0, 0, 0), (0.2, 0.3, 0.5), 0.1, 0.05, mirror=True),
        lambda b: b.cone(0.2, 0.1, 0.3, at=(0.4, 0.1, 0), repeat=5, cut=True, paint="red"),
    )
    p = points()
    np.testing.assert_allclose(mixed.scaled(1.7).distance(p), 1.7 * mixed.distance(p / 1.7), atol=1e-9)
    np.testing.assert_allclose(mixed.raised(0.3).distance(p), mixed.distance(p - [0, 0, 0.3]), atol=1e-9)
    swapped = mixed.repainted({MAIN: paint("red"), paint("red"): MAIN})
    exchange = {MAIN: paint("red"), paint("red"): MAIN}
    assert swapped.paints(p).tolist() == [exchange[one] for one in mixed.paints(p).tolist()]
    ball = built(lambda b: b.sphere(0.4, at=(0.5, 0, 0)))
    both = mixed.union(ball)
    np.testing.assert_allclose(both.distance(p), np.minimum(mixed.distance(p), ball.distance(p)), atol=1e-9)


@pytest.mark.parametrize("proportions", [(1.0, 1.0, 1.0), (0.83, 0.83, 1.2), (1.0, 1.0, 0.5)])
def test_placed_solids_fit_the_sphere(proportions: tuple[float, float, float]) -> None:
    size = 0.7
    solid = built(
        lambda b: b.box((2.0, 1.0, 0.5), at=(1, -1, 1)), lambda b: b.sphere(0.3, at=(-0.8, -1, 1.7))
    )
    # The bounds of the box are known; `bounds` is accurate to about 1/60 of the size.
    low, high = solid.bounds()
    np.testing.assert_allclose(low, [-1.1, -2, 0.5], atol=0.08)
    np.testing.assert_allclose(high, [3, 0, 2.0], atol=0.08)
    placed = solid.placed(proportions, size)
    vertices = mesh(placed)[0].numpy()
    assert abs(np.linalg.norm(vertices, axis=1).max() - RADIUS * size) < 0.03
    middle = (vertices.min(0) + vertices.max(0)) / 2
    assert np.abs(middle).max() < 0.03
    sides = (vertices.max(0) - vertices.min(0)) / np.asarray(proportions)
    np.testing.assert_allclose(sides / sides[0], np.array([4.1, 2, 1.5]) / 4.1, rtol=0.06)
    np.testing.assert_allclose(placed.distance(vertices.astype(float)), 0, atol=6e-3)


def test_distances_of_placed_solids_are_bounds() -> None:
    placed = built(lambda b: b.box((2.0, 1.0, 0.5))).placed((0.6, 1.0, 1.4))
    p = points()
    vertices = mesh(placed)[0].numpy()
    nearest, _ = cKDTree(vertices).query(p)
    outside = placed.distance(p) > 0
    assert (placed.distance(p)[outside] <= nearest[outside] + 0.01).all()


def test_solid_outside_the_box_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond 4 units"):
        built(lambda b: b.box((2.0, 1.0, 0.5), at=(2.5, 0, 0))).placed()


def test_empty_solid_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        built(lambda b: b.sphere(0.2), lambda b: b.sphere(0.5, cut=True)).placed()


@pytest.mark.parametrize("name", OBJECT_CLASSES)
def test_classes_have_six_distinct_connected_instances(name: str) -> None:
    thing = OBJECT_CLASSES[name]
    rows = [thing.instance(index).rows for index in range(INSTANCES)]
    for index, one in enumerate(rows):
        assert np.array_equal(one, thing.instance(index).rows)  # the same at every call
        assert np.isfinite(one).all()
        assert not any(one.shape == other.shape and np.allclose(one, other) for other in rows[:index])
        unions = one[one[:, 1] == 0]
        assert set(unions[:, 3]) <= {*range(len(NAMES)), MAIN, ACCENT}
    index = sorted(OBJECT_CLASSES).index(name) % INSTANCES
    solid = thing.instance(index).placed()
    axis = np.linspace(-RADIUS, RADIUS, 64)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    # Half a cell of tolerance, so that parts thinner than a cell do not count as separate pieces.
    inside = (solid.distance(grid) < (axis[1] - axis[0]) / 2).reshape(64, 64, 64)
    _, pieces = ndimage.label(inside, np.ones((3, 3, 3)))
    assert pieces == 1
    views = see(solid, orbit([30.0, 210.0], 20.0, 2.5), 40)
    seen = views.paint[views.paint != 255]
    assert (seen == MAIN).mean() > 0.1
    assert torch.isfinite(torch.from_numpy(views.depth)).all()
    assert thing.color in NAMES
    assert len(set(thing.variants)) == 2
    assert set(thing.variants) <= set(range(INSTANCES))
    assert thing.accent is None or (seen == ACCENT).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_modifiers_change_the_shape(shape: str) -> None:
    plain, changed = (mesh(solid_of("house", one, "", 0))[0] for one in ("", shape))
    sides, others = ((v.amax(0) - v.amin(0)).double().numpy() for v in (plain, changed))
    proportions, size = SHAPES[shape]
    ratio = others / sides / np.asarray(proportions)
    np.testing.assert_allclose(ratio / ratio[0], 1, rtol=0.03)
    assert abs(float(changed.norm(dim=1).max()) - RADIUS * size) < 0.03


@pytest.mark.parametrize("number", [0, 2, 4])
def test_pairs_are_connected(number: int) -> None:
    rider, support = RIDERS[2 * number], SUPPORTS[number]
    solid = solid_of(rider, "", support, number)
    axis = np.linspace(-RADIUS, RADIUS, 64)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = (solid.distance(grid) < (axis[1] - axis[0]) / 2).reshape(64, 64, 64)
    assert ndimage.label(inside, np.ones((3, 3, 3)))[1] == 1
    # The support (second colour) is below the rider (main colour).
    paints = solid.paints(grid)[inside.ravel()]
    heights = grid[inside.ravel(), 2]
    assert heights[paints == ACCENT].mean() < heights[paints == MAIN].mean() - 0.2
