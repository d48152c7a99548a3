"""Import of the files in other programs: headless Blender with default import settings, and assimp.

Both come with Debian (apt install blender python3-numpy assimp-utils). What is missing skips the tests that
need it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.helpers.pace import patience
from tests.helpers.paths import HELPERS
from triplaneturbo.mesh.io import Placement, save
from triplaneturbo.mesh.io.registry import suffixes
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import weld
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline

SIZE = 0.25  # metres
KINDS = [kind for kind in suffixes() if kind != "3mf"]  # which Blender does not read: see test_threemf.py
NUMBERS = {"stl": 1000}  # an STL is in millimetres, and Blender and assimp ignore units
SCRIPT = HELPERS / "blender_import.py"

Files = dict[tuple[str, str], Path]
Report = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def mushroom() -> Mesh:
    return Pipeline(load_model(SMALL))("a red mushroom", seed=1, resolution=48, texture_size=512)


@pytest.fixture(scope="module")
def files(mushroom: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A file of each format with y up and with z up, 25 cm long, on the ground; the OBJ unpacked."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for up in "yz":
        for kind in KINDS:
            suffix = suffixes()[kind]
            path = save(mushroom, folder / f"{up}{suffix}", placement=Placement(SIZE, up, "ground"))
            if kind == "obj":
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)
                path = folder / f"{up}.obj"
            found[kind, up] = path
    return found


@pytest.fixture(scope="module")
def blender(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Blender's description of each imported file by path; the GLB's "picture" is the path of a rendering."""
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed (apt install blender python3-numpy)")
    folder = tmp_path_factory.mktemp("blender")
    paths = [str(files["glb", "y"]), *(str(path) for key, path in files.items() if key != ("glb", "y"))]
    done = subprocess.run(
        [program, "-b", "--factory-startup", "--python-exit-code", "1", "-P", str(SCRIPT), "--"]
        + [str(folder / "report.json"), str(folder / "picture.png"), *paths],
        capture_output=True,
        text=True,
        timeout=patience(180),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((folder / "report.json").read_text())
    report[paths[0]]["picture"] = folder / "picture.png"
    return report


def imported(blender: Report, path: Path) -> dict[str, Any]:
    """Return Blender's description of a file; skip the test if this Blender cannot import it."""
    found = blender[str(path)]
    if "missing" in found:
        pytest.skip(found["missing"])
    return found


def extents(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Expected bounding box with z up and the front toward -y."""
    low, high = mesh.bounds.double().numpy()
    x, y, z = (high - low) * SIZE / max(high - low)
    return np.array([-y / 2, -x / 2, 0]), np.array([y / 2, x / 2, z])


UPRIGHT = [("glb", "y"), ("glb", "z"), ("obj", "y"), ("ply", "z"), ("stl", "z")]
# PLY and STL declare no up axis and are imported unchanged; an OBJ is assumed to have y up.
LYING = [("obj", "z"), ("ply", "y"), ("stl", "y")]


@pytest.mark.parametrize(("kind", "up"), [*UPRIGHT, ("usdz", "y"), ("usdz", "z")])
def test_blender_imports_upright_at_the_right_size(
    blender: Report, files: Files, mushroom: Mesh, kind: str, up: str
) -> None:
    found = imported(blender, files[kind, up])
    low, high = extents(mushroom)
    scale = NUMBERS.get(kind, 1)
    np.testing.assert_allclose(np.divide(found["low"], scale), low, atol=1e-6)
    np.testing.assert_allclose(np.divide(found["high"], scale), high, atol=1e-6)
    assert max(high - low) == pytest.approx(SIZE)


@pytest.mark.parametrize(("kind", "up"), LYING)
def test_z_up_files_keep_their_axes_in_blender(
    blender: Report, files: Files, mushroom: Mesh, kind: str, up: str
) -> None:
    found = imported(blender, files[kind, up])
    sides = np.subtract(found["high"], found["low"]) / NUMBERS.get(kind, 1)
    assert sides[2] == pytest.approx(extents(mushroom)[1][1] * 2, abs=1e-6)  # the depth points up
    assert max(sides) == pytest.approx(SIZE)


@pytest.mark.parametrize("kind", KINDS)
def test_blender_imports_all_attributes(blender: Report, files: Files, mushroom: Mesh, kind: str) -> None:
    found = imported(blender, files[kind, "y"])
    assert mushroom.texture is not None
    assert mushroom.normal_map is not None
    assert found["objects"] == 1
    assert found["faces"] == len(mushroom.faces)
    split = kind in ("glb", "usdz")
    assert found["vertices"] == len(mushroom.vertices if split else weld(mushroom.vertices).first)
    textured = split or kind == "obj"
    assert found["materials"] == int(textured)
    assert found["uv"] == [int(textured)]
    assert found["colors"] == int(kind == "ply")
    image = {"size": list(mushroom.texture.shape[1::-1]), "space": "sRGB"}
    assert found["base"] == (image if textured else None)
    if split:  # Blender ignores the normal map of an OBJ (norm)
        assert found["normal"] == {"size": list(mushroom.normal_map.shape[1::-1]), "space": "Non-Color"}


def test_blender_renders_a_red_cap_above_a_white_stem(blender: Report, files: Files) -> None:
    picture = np.asarray(Image.open(imported(blender, files["glb", "y"])["picture"])).astype(int)
    solid = picture[..., 3] > 200
    red = solid & (picture[..., 0] > 150) & (picture[..., 0] > picture[..., 1:3].max(2) + 80)
    white = solid & (picture[..., :3].min(2) > 150)
    assert 0.05 < solid.mean() < 0.7
    assert red.sum() > 0.3 * solid.sum()
    assert white.sum() > 0.1 * solid.sum()
    rows = np.arange(len(picture))[:, None]
    assert (rows * red).sum() / red.sum() < (rows * white).sum() / white.sum()  # row 0 is the top


def assimp(*arguments: str) -> str:
    program = shutil.which("assimp")
    if program is None:
        pytest.skip("assimp is not installed (apt install assimp-utils)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=patience(60))
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.parametrize(("kind", "up"), [(kind, up) for kind in ("glb", "obj", "ply", "stl") for up in "yz"])
def test_assimp_reads_the_files(files: Files, mushroom: Mesh, kind: str, up: str) -> None:
    said = assimp("info", str(files[kind, up]))

    def number(name: str) -> int:
        return int(re.search(rf"^{re.escape(name)}:? +(\d+)", said, re.MULTILINE)[1])  # type: ignore[index]

    def point(name: str) -> np.ndarray:
        return np.array(re.search(rf"^{name} point +\((.*)\)", said, re.MULTILINE)[1].split(), float)  # type: ignore[index]

    assert number("Meshes") == 1
    assert number("Faces") == len(mushroom.faces)
    low, high = extents(mushroom)  # z up
    if up == "y" or kind == "glb":
        low, high = (np.array((low[0], 0, low[1])), np.array((high[0], high[2], high[1])))
    scale = NUMBERS.get(kind, 1)
    np.testing.assert_allclose(point("Minimum") / scale, low, atol=2e-6)
    np.testing.assert_allclose(point("Maximum") / scale, high, atol=2e-6)
    if kind == "glb":
        assert number("Textures (embed.)") == 2
        assert number("Vertices") == len(mushroom.vertices)
    if kind == "obj":
        assert f"'{up}.png'" in said
        assert f"'{up}_normal.png'" in said


@pytest.mark.parametrize("kind", ["glb", "obj", "ply"])
def test_assimp_reads_the_same_solid(files: Files, mushroom: Mesh, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "again.stl"
    assimp("export", str(files[kind, "y"]), str(path))
    again, ours = trimesh.load(path), trimesh.load(files["stl", "y"])
    assert again.is_volume
    scale = NUMBERS["stl"]  # assimp keeps the numbers, which are metres in the other formats
    assert again.volume * scale**3 == pytest.approx(ours.volume, rel=1e-4)
    np.testing.assert_allclose(again.bounds * scale, ours.bounds, atol=1e-3)


@pytest.mark.parametrize("unwrap", ["fast", "xatlas"])
def test_tangents_match_blender(tmp_path: Path, unwrap: str) -> None:
    """Tangents match MikkTSpace's, up to the precision of Blender's normals."""
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed (apt install blender)")
    mesh = Pipeline(load_model(SMALL))("a red mushroom", seed=1, resolution=48, faces=3000, unwrap=unwrap)
    assert mesh.uv is not None
    assert mesh.normals is not None
    assert mesh.tangents is not None
    upward = mesh.uv * mesh.uv.new_tensor([1, -1]) + mesh.uv.new_tensor([0, 1])
    lists = {"vertices": mesh.vertices, "normals": mesh.normals, "uv": upward, "faces": mesh.faces}
    source, target = tmp_path / "mesh.json", tmp_path / "tangents.json"
    source.write_text(json.dumps({name: part.tolist() for name, part in lists.items()}))
    script = HELPERS / "blender_tangents.py"
    done = subprocess.run(
        [program, "-b", "--factory-startup", "--python-exit-code", "1", "-P", str(script)]
        + ["--", str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    theirs = np.array(json.loads(target.read_text()))  # [3F, 4]
    ours = mesh.tangents[mesh.faces.reshape(-1)].double().numpy()
    np.testing.assert_array_equal(theirs[:, 3], ours[:, 3])
    given = theirs[:, :3].any(1)  # Blender has none at corners of slivers
    assert given.mean() > 0.999
    theirs, ours = theirs[given], ours[given]
    sine = np.linalg.norm(np.cross(theirs[:, :3], ours[:, :3]), axis=1)
    assert (theirs[:, :3] * ours[:, :3]).sum(1).min() > 0
    degrees = np.rad2deg(np.arcsin(sine.clip(0, 1)))
    assert np.quantile(degrees, 0.99) < 0.05  # weighted by area: 3 to 8
    assert degrees.max() < 1


@pytest.mark.parametrize("unit", ["auto", "mm"])
def test_slicer_slices_the_stl(tmp_path: Path, unit: str) -> None:
    program = shutil.which("prusa-slicer")
    if program is None:
        pytest.skip("PrusaSlicer is not installed (apt install prusa-slicer)")
    solid = Pipeline(load_model(SMALL))(
        "a red mushroom", seed=1, resolution=48, watertight=True, unwrap="none"
    )
    path = save(solid, tmp_path / "solid.stl", placement=Placement(0.05, "z", "ground", unit))
    code = tmp_path / "solid.gcode"
    done = subprocess.run(
        [program, "--export-gcode", "--center", "100,100", str(path), "-o", str(code)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert code.is_file(), done.stdout[-1000:] + done.stderr[-1000:]  # in metres: "No layers were detected"
    heights = [float(height) for height in re.findall(r"^;Z:([0-9.]+)", code.read_text(), re.MULTILINE)]
    low, high = trimesh.load(path).bounds
    assert max(high - low) == pytest.approx(50, rel=1e-5)
    assert max(heights) == pytest.approx(high[2], abs=0.5)
