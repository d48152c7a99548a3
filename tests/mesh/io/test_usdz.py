"""USDZ: the validators of usd-core, and the file read by usd-core against the written mesh."""

import hashlib
import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.shapes import TURN, colored, tetrahedron, textured
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import Placement, encode
from triplaneturbo.mesh.io.usdz import to_usdz
from triplaneturbo.mesh.mesh import Mesh

CASES = {
    "textured": lambda: (textured(), "png"),
    "normal map": lambda: (textured(normal_map=True), "png"),
    "normal map only": lambda: (textured(normal_map=True).replace(texture=None), "png"),
    "jpeg": lambda: (textured((37, 53), normal_map=True), "jpeg"),
    "colours": lambda: (colored(), "png"),
    "plain": lambda: (tetrahedron(), "png"),
}


@pytest.fixture
def opened(tmp_path):
    """Open a package's bytes as a stage."""
    from pxr import Usd

    def open_stage(data):
        path = tmp_path / "opened.usdz"
        path.write_bytes(data)
        return Usd.Stage.Open(str(path))

    return open_stage


def mesh_of(stage):
    from pxr import UsdGeom

    return UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))


def inputs(stage, shader):
    """Return the inputs of one shader: values, or names of connected shaders."""
    from pxr import UsdShade

    found = {}
    for entry in UsdShade.Shader(stage.GetPrimAtPath(f"/object/surface/{shader}")).GetInputs():
        sources = entry.GetConnectedSources()[0]
        found[entry.GetBaseName()] = sources[0].source.GetPath().name if sources else entry.Get()
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("up", ["y", "z"])
def test_every_package_is_valid(name, up, opened):
    from pxr import UsdValidation

    mesh, image = CASES[name]()
    stage = opened(to_usdz(mesh, image, Placement(up=up)))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [(error.GetName(), error.GetMessage()) for error in errors] == []


def test_validators_detect_errors(opened):
    from pxr import UsdValidation

    stage = opened(to_usdz(textured(normal_map=True)))
    stage.GetPrimAtPath("/object/surface/bumps").GetAttribute("inputs:bias").Set((0, 0, 0, 0))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert UsdValidation.ValidationContext(validators).Validate(stage)


@pytest.mark.parametrize("name", CASES)
def test_package_is_an_aligned_uncompressed_zip(name):
    mesh, image = CASES[name]()
    data = encode(mesh, "usdz", texture_format=image)
    assert data == encode(mesh, "usdz", texture_format=image)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    assert entries[0].filename == "mesh.usdc"
    for entry in entries:
        name_length, extra_length = (
            int.from_bytes(data[entry.header_offset + at : entry.header_offset + at + 2], "little")
            for at in (26, 28)
        )
        assert (entry.header_offset + 30 + name_length + extra_length) % 64 == 0
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)


def test_bytes_depend_neither_on_the_clock_nor_on_the_process():
    program = (
        "import hashlib, os, sys, time; from tests.helpers.shapes import textured\n"
        "from triplaneturbo.mesh.io.usdz import to_usdz\n"
        "for zone in sys.argv[1:]:\n"
        "    os.environ['TZ'] = zone\n"
        "    getattr(time, 'tzset', int)()  # which Windows lacks\n"
        "    print(hashlib.sha256(to_usdz(textured())).hexdigest())\n"
    )
    zones = ["UTC", "Asia/Tokyo", "America/Los_Angeles"]
    done = subprocess.run([sys.executable, "-c", program, *zones], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(to_usdz(textured())).hexdigest()] * len(zones)


@pytest.mark.parametrize(("unit", "metres"), [("auto", 1), ("cm", 0.01), ("mm", 0.001), ("in", 0.0254)])
def test_package_declares_its_unit(unit, metres, opened):
    from pxr import UsdGeom

    stage = opened(to_usdz(textured(), placement=Placement(size=0.3, unit=unit)))
    assert UsdGeom.GetStageMetersPerUnit(stage) == pytest.approx(metres)
    points = np.array(mesh_of(stage).GetPointsAttr().Get())
    assert (points.max(0) - points.min(0)).max() * metres == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("up", ["y", "z"])
def test_round_trip(up, opened):
    from pxr import UsdGeom

    mesh = textured(normal_map=True)
    stage = opened(to_usdz(mesh, placement=Placement(size=0.3, up=up, pivot="ground")))
    assert UsdGeom.GetStageUpAxis(stage) == up.upper()
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert stage.GetDefaultPrim().GetPath() == "/object"
    shape = mesh_of(stage)
    low, high = mesh.bounds
    origin = torch.tensor([*((low + high) / 2)[:2].tolist(), low[2].item()])
    expected = (mesh.vertices - origin) * 0.3 / (high - low).max()
    x, y, z = expected.unbind(1)
    expected = torch.stack((y, z, x) if up == "y" else (y, -x, z), dim=1).numpy()
    points = np.array(shape.GetPointsAttr().Get())
    np.testing.assert_allclose(points, expected, atol=1e-6)
    np.testing.assert_allclose(shape.GetExtentAttr().Get(), [points.min(0), points.max(0)])
    assert points[:, 1 if up == "y" else 2].min() == 0
    np.testing.assert_array_equal(
        np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), mesh.faces.numpy()
    )
    assert set(shape.GetFaceVertexCountsAttr().Get()) == {3}
    assert shape.GetSubdivisionSchemeAttr().Get() == "none"
    uv = np.array(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st").Get())
    np.testing.assert_allclose(uv, np.stack((mesh.uv[:, 0], 1 - mesh.uv[:, 1]), 1), atol=1e-6)


def test_normals_turn_with_the_mesh(opened):
    """The normals of a unit ball are its positions."""
    mesh = textured()
    places = torch.nn.functional.normalize(mesh.vertices / torch.tensor([0.9, 0.6, 0.4]), dim=1)
    stage = opened(to_usdz(mesh.replace(vertices=places, normals=places)))
    shape = mesh_of(stage)
    np.testing.assert_allclose(shape.GetNormalsAttr().Get(), shape.GetPointsAttr().Get(), atol=1e-6)
    np.testing.assert_allclose(shape.GetPointsAttr().Get(), places @ TURN.T, atol=1e-6)
    assert shape.GetNormalsInterpolation() == "vertex"


def test_material_uses_the_textures(opened):
    data = to_usdz(textured(normal_map=True), "jpeg")
    stage = opened(data)
    surface = inputs(stage, "preview")
    assert surface["metallic"] == 0
    assert surface["roughness"] == pytest.approx(0.9)
    assert (surface["diffuseColor"], surface["normal"]) == ("baseColor", "bumps")
    base, bumps = inputs(stage, "baseColor"), inputs(stage, "bumps")
    assert (base["file"].path, base["sourceColorSpace"], base["st"]) == ("texture.jpg", "sRGB", "uv")
    assert (bumps["file"].path, bumps["sourceColorSpace"], bumps["st"]) == ("normal.png", "raw", "uv")
    assert tuple(bumps["scale"]) == (2, 2, 2, 1)
    assert tuple(bumps["bias"]) == (-1, -1, -1, 0)
    assert inputs(stage, "uv")["varname"] == "st"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert Image.open(io.BytesIO(archive.read("texture.jpg"))).size == (128, 64)
        pixels = np.asarray(Image.open(io.BytesIO(archive.read("normal.png"))))
    np.testing.assert_array_equal(pixels, textured(normal_map=True).normal_map)


def test_vertex_colours_are_linear(opened):
    mesh = colored()
    stage = opened(to_usdz(mesh))
    srgb = mesh.colors.numpy().astype(np.float64)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(mesh_of(stage).GetDisplayColorAttr().Get(), linear, atol=1e-6)
    assert inputs(stage, "preview")["diffuseColor"] == "colors"
    assert inputs(stage, "colors")["varname"] == "displayColor"


def test_invalid_input_is_refused():
    with pytest.raises(UserError, match="png"):
        to_usdz(textured(), "webp")
    with pytest.raises(UserError, match="empty"):
        to_usdz(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="uv must be"):
        to_usdz(textured().replace(uv=torch.rand(3, 2)))
