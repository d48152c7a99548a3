"""3MF: read back by lib3mf, the consortium's library, and sliced by PrusaSlicer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.pace import patience
from tests.helpers.shapes import colored, textured
from triplaneturbo.mesh.io import Placement, encode, save
from triplaneturbo.mesh.io.common import to_file_axes
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
from triplaneturbo.mesh.io.threemf import to_3mf
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import weld
from triplaneturbo.render.colors import sample
from triplaneturbo.request import Request


def opened(data: bytes) -> tuple[Any, Any]:
    """The model and its mesh, read in strict mode."""
    lib3mf = pytest.importorskip("lib3mf", reason="lib3mf is not installed (it has no wheel here)")
    model = lib3mf.get_wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(True)
    reader.ReadFromBuffer(data)
    assert [reader.GetWarning(index) for index in range(reader.GetWarningCount())] == []
    meshes = model.GetMeshObjects()
    assert meshes.MoveNext()
    return model, meshes.GetCurrentMeshObject()


def corner_colors(model: Any, mesh: Any) -> np.ndarray:
    """The colour of each corner of each triangle, [F, 3, 3], from 0 to 255."""
    colors = []
    for properties in mesh.GetAllTriangleProperties():
        group = model.GetColorGroupByID(properties.ResourceID)
        found = [group.GetColor(index) for index in properties.PropertyIDs]
        colors.append([(color.Red, color.Green, color.Blue) for color in found])
    return np.array(colors)


@pytest.mark.parametrize("make", [textured, colored])
def test_positions_faces_and_colours_are_read_back(make: Any) -> None:
    mesh: Mesh = make()
    model, read = opened(to_3mf(mesh, Placement(0.08, pivot="ground")))
    lib3mf = pytest.importorskip("lib3mf")
    assert model.GetUnit() == lib3mf.ModelUnit.MilliMeter
    welded = weld(mesh.vertices)
    positions = np.array([tuple(vertex.Coordinates) for vertex in read.GetVertices()])
    faces = np.array([tuple(triangle.Indices) for triangle in read.GetTriangleIndices()])
    assert len(positions) == len(welded.first)
    sides = positions.max(0) - positions.min(0)
    assert max(sides) == pytest.approx(80, abs=1e-4)
    assert positions[:, 2].min() == pytest.approx(0, abs=1e-5)
    turned = to_file_axes(mesh.vertices[welded.first], "z").numpy()
    scale = 80 / np.ptp(turned, axis=0).max()
    np.testing.assert_allclose(np.ptp(turned, axis=0) * scale, sides, atol=1e-3)
    expected = welded.index[mesh.faces].numpy()
    distinct = [len(set(face)) == 3 for face in expected.tolist()]
    np.testing.assert_array_equal(faces, expected[distinct])
    if mesh.colors is not None:
        colors = mesh.colors
    else:
        assert mesh.texture is not None
        assert mesh.uv is not None
        colors = sample(torch.from_numpy(mesh.texture.astype(np.float32)) / 255, mesh.uv)
    bytes_ = (colors * 255).round().numpy()[mesh.faces.numpy()][distinct]
    np.testing.assert_array_equal(corner_colors(model, read), bytes_)
    assert read.IsManifoldAndOriented()


def test_mesh_without_colours_has_no_colour_group() -> None:
    data = to_3mf(colored().replace(colors=None))
    model, read = opened(data)
    assert model.GetColorGroups().Count() == 0
    assert read.GetTriangleCount() > 0


@pytest.mark.parametrize(("unit", "size"), [("auto", 250), ("m", 0.25), ("cm", 25), ("in", 0.25 / 0.0254)])
def test_the_file_states_its_unit(unit: str, size: float) -> None:
    model, read = opened(encode(textured(), "3mf", placement=Placement(0.25, unit=unit)))
    names = {"auto": "MilliMeter", "m": "Meter", "cm": "CentiMeter", "in": "Inch"}
    assert model.GetUnit() == getattr(pytest.importorskip("lib3mf").ModelUnit, names[unit])
    positions = np.array([tuple(vertex.Coordinates) for vertex in read.GetVertices()])
    assert np.ptp(positions, axis=0).max() == pytest.approx(size, rel=1e-5)


def test_same_mesh_gives_same_bytes_with_either_up_axis() -> None:
    first = encode(textured(), "3mf")
    assert first == encode(textured(), "3mf")
    assert first == encode(textured(), "3mf", placement=Placement(up="z"))


def test_metadata_is_valid_and_changes_nothing_else() -> None:
    metadata = GenerationMetadata(Request('<b>"a & b"</b>', seed=3).checked(), "small")
    plain, told = opened(to_3mf(textured())), opened(to_3mf(textured(), metadata=metadata))
    group = told[0].GetMetaDataGroup()
    (entry,) = [
        group.GetMetaData(index)
        for index in range(group.GetMetaDataCount())
        if group.GetMetaData(index).GetNameSpace() == "urn:triplaneturbo:generation"
    ]
    assert entry.GetValue() == metadata.as_text()
    for model, mesh in (plain, told):
        assert len(mesh.GetVertices()) == len(plain[1].GetVertices())
        np.testing.assert_array_equal(corner_colors(model, mesh), corner_colors(*plain))


def test_prusa_slicer_slices_the_file(tmp_path: Path) -> None:
    program = shutil.which("prusa-slicer")
    if program is None:
        pytest.skip("PrusaSlicer is not installed (apt install prusa-slicer)")
    path = save(textured(), tmp_path / "solid.3mf", placement=Placement(0.05, pivot="ground"))
    code = tmp_path / "solid.gcode"
    done = subprocess.run(
        [program, "--export-gcode", "--center", "100,100", "-o", str(code), str(path)],
        capture_output=True, text=True, timeout=patience(120),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert code.read_text(encoding="utf-8", errors="replace").count("\nG1 ") > 1000
    told = subprocess.run(
        [program, "--info", str(path)], capture_output=True, text=True, timeout=patience(60)
    )
    assert "manifold = yes" in told.stdout
    sizes = [float(line.split("=")[1]) for line in told.stdout.splitlines() if line.startswith("size_")]
    assert max(sizes) == pytest.approx(50, abs=1e-3)
