"""Placement: size, up axis and origin of files read by trimesh, against explicit formulas."""

import numpy as np
import pytest
import torch

from tests.helpers.mesh_readers import read, read_obj
from tests.helpers.shapes import TURN, colored, textured
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import AS_MODELLED, Placement, encode, save
from triplaneturbo.mesh.io.registry import suffixes, unit_of
from triplaneturbo.mesh.mesh import Mesh

KINDS = ["glb", "obj", "ply", "stl"]
PER_METRE = {"m": 1, "cm": 100, "mm": 1000, "in": 1 / 0.0254}
OWN = {"glb": "m", "obj": "m", "ply": "m", "stl": "mm", "3mf": "mm", "usdz": "m"}


def extents(data, kind, unit=None):
    """Return the bounding box [2, 3] of a file's contents, in metres."""
    return (read_obj(data) if kind == "obj" else read(data, kind)).bounds / PER_METRE[unit or OWN[kind]]


def off_centre():
    mesh = textured()
    return mesh.replace(vertices=mesh.vertices * 0.7 + torch.tensor([0.2, -0.3, 0.15]))


def placed(mesh, size, up, pivot):
    """Reference: the corners of the bounding box, in the axes of a file."""
    low, high = (np.array(corner.tolist()) for corner in mesh.bounds)
    scale = 1 if size is None else size / max(high - low)
    move = {
        "model": np.zeros(3),
        "centre": -(low + high) / 2,
        "ground": -np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]),
    }[pivot]
    corners = []
    for x, y, z in ((low + move) * scale, (high + move) * scale):
        corners.append((y, z, x) if up == "y" else (y, -x, z))
    return np.sort(np.array(corners), axis=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pivot", ["model", "centre", "ground"])
@pytest.mark.parametrize(("size", "up"), [(None, "y"), (0.12, "y"), (None, "z"), (25, "z")])
def test_every_format_applies_the_placement(kind, size, up, pivot):
    mesh = off_centre()
    bounds = extents(encode(mesh, kind, placement=Placement(size, up, pivot)), kind)
    expected = placed(mesh, size, "y" if kind == "glb" else up, pivot)
    np.testing.assert_allclose(bounds, expected, atol=2e-6 * (size or 1))
    height = 1 if up == "y" or kind == "glb" else 2
    if size is not None:
        assert (bounds[1] - bounds[0]).max() == pytest.approx(size, rel=1e-5)
    if pivot == "ground":
        assert bounds[0, height] == 0
    if pivot == "centre":
        np.testing.assert_allclose(bounds.sum(0), 0, atol=1e-6 * (size or 1))


@pytest.mark.parametrize("kind", KINDS)
def test_default_placement_changes_nothing(kind):
    mesh = off_centre()
    assert (
        encode(mesh, kind)
        == encode(mesh, kind, placement=AS_MODELLED)
        == encode(mesh, kind, "mesh", Placement())
    )
    expected = (mesh.bounds @ TURN.T).numpy()
    np.testing.assert_allclose(extents(encode(mesh, kind), kind), expected, rtol=1e-7)  # an OBJ has 8 digits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", PER_METRE)
def test_unit_scales_the_numbers_only(kind, unit):
    mesh, placement = off_centre(), Placement(0.12, "y", "ground", unit)
    written = "m" if kind == "glb" else unit
    assert unit_of(kind, placement) == written
    bounds = extents(encode(mesh, kind, placement=placement), kind, written)
    np.testing.assert_allclose(bounds, placed(mesh, 0.12, "y", "ground"), atol=1e-6)
    if unit == OWN[kind]:
        assert encode(mesh, kind, placement=placement) == encode(
            mesh, kind, placement=Placement(0.12, "y", "ground")
        )


def test_stl_is_in_millimetres_and_other_formats_in_metres():
    assert {kind: unit_of(kind, Placement()) for kind in suffixes()} == OWN
    longest = (read(encode(textured(), "stl", placement=Placement(size=0.08)), "stl").extents).max()
    assert longest == pytest.approx(80, rel=1e-5)  # as a slicer reads it: 8 cm


@pytest.mark.parametrize("kind", ["obj", "ply", "stl"])
def test_z_up_matches_blenders_glb_import(kind):
    mesh = textured()
    x, y, z = (mesh.vertices @ TURN.T).unbind(1)
    expected = torch.stack((x, -z, y), dim=1)
    bounds = torch.stack((expected.amin(0), expected.amax(0))).numpy()
    np.testing.assert_allclose(
        extents(encode(mesh, kind, placement=Placement(up="z")), kind), bounds, atol=1e-6
    )


def test_glb_is_always_y_up():
    mesh = textured()
    assert encode(mesh, "glb", placement=Placement(up="z")) == encode(mesh, "glb")


BAD = [
    ({"up": "x"}, "Invalid up axis 'x'"),
    ({"up": None}, "Invalid up axis None"),
    ({"pivot": "top"}, "pivot 'top'; choose one of model, centre, ground"),
    *(({"unit": unit}, "choose one of auto, m, cm, mm, in") for unit in ("km", "", None, "MM", ["m"])),
    *(
        ({"size": size}, "in metres, 0.001 to 1000")
        for size in (0.0, -1.0, 0.0009, 1001, float("nan"), float("inf"), "2", True)
    ),
]


@pytest.mark.parametrize(("values", "sentence"), BAD)
def test_invalid_placements_are_refused(values, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        Placement(**values).checked()
    for kind in KINDS:
        with pytest.raises(UserError, match=sentence):
            save(colored(), tmp_path / "x", kind, Placement(**values))
    assert list(tmp_path.iterdir()) == []


def test_point_has_no_size():
    point = Mesh(torch.ones(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(UserError, match="cannot be scaled to a size"):
        encode(point, "glb", placement=Placement(size=1.0))
