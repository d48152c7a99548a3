"""refine --mesh: the texture of a given mesh, Gaussians from it, and files that cannot be used."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.helpers.gltf import accessor
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.refine import given_mesh
from triplaneturbo.representations import field_fit
from triplaneturbo.representations.field_fit import FitOptions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def call(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        return main(["refine", *arguments, "--model", model, "--device", "cpu", "--quiet", "--steps", "2"])

    return call


def cup() -> trimesh.Trimesh:
    """A textured box in millimetres with texture coordinates of its own, some of them outside [0, 1]."""
    mesh = trimesh.creation.box((70, 70, 90)).subdivide()
    mesh.vertices += 1000.125
    uv = mesh.vertices[:, :2] / 60 + mesh.vertices[:, 2:] / 90
    image = Image.fromarray(np.full((64, 32, 3), 128, np.uint8))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def parts(path: Path) -> list[np.ndarray]:
    """Return the positions, indices and texture coordinates of a GLB exactly as they are in the file."""
    return [accessor(path.read_bytes(), name) for name in ("POSITION", "indices", "TEXCOORD_0")]


def texture(path: Path) -> np.ndarray:
    mesh = trimesh.load(path, force="mesh")
    return np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")).astype(int)


def test_keep_shape_changes_nothing_but_the_texture(call: Callable[..., int]) -> None:
    cup().export("cup.glb")
    assert call("a red cup", "--mesh", "cup.glb", "--keep-shape", "-o", "out.glb") == 0
    for before, after in zip(parts(Path("cup.glb")), parts(Path("out.glb")), strict=True):
        assert np.array_equal(before, after)
    before, after = texture(Path("cup.glb")), texture(Path("out.glb"))
    assert before.shape == after.shape == (64, 32, 3)
    assert not np.array_equal(before, after)
    assert sorted(path.name for path in Path().iterdir()) == ["cup.glb", "out.glb"]


def test_a_mesh_without_texture_coordinates_keeps_its_faces(call: Callable[..., int]) -> None:
    box = trimesh.creation.box((7, 7, 9))
    box.export("box.stl")
    assert call("--prompt", "a red cup", "--mesh", "box.stl", "--as", "texture", "-o", "out.glb") == 0
    made = trimesh.load("out.glb", force="mesh")
    assert len(made.faces) == 12
    assert made.extents == pytest.approx([0.007, 0.007, 0.009], rel=1e-5)  # an STL has millimetres
    assert np.asarray(made.visual.material.baseColorTexture).shape[:2] == (1024, 1024)


def test_gaussians_start_from_the_mesh_and_return_to_its_place(call: Callable[..., int]) -> None:
    cup().export("cup.glb")
    assert call("a red cup", "--mesh", "cup.glb", "-o", "out.glb", "out.splats.ply") == 0
    made = trimesh.load("out.glb", force="mesh")
    assert made.bounds == pytest.approx(cup().bounds, abs=8)


def test_a_field_starts_from_the_mesh_and_says_how_well_it_fits(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(field_fit, "FitOptions", lambda: FitOptions(80, 48, 24, 20_000, 2048))
    cup().export("cup.glb")
    arguments = ["refine", "a red cup", "--mesh", "cup.glb", "--as", "field", "--model", model, "--device"]
    assert main([*arguments, "cpu", "--steps", "1", "--resolution", "48", "-o", "out.glb"]) == 0
    made = trimesh.load("out.glb", force="mesh")
    assert made.bounds == pytest.approx(cup().bounds, abs=8)
    error = capsys.readouterr().err
    found = re.search(r"Fit to the mesh as triplane field: the outlines overlap by ([0-9.]+) %, and", error)
    assert found, error
    assert float(found[1]) > 85


def test_a_refinement_of_another_file_is_not_resumed(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cup().export("cup.glb")
    (Path("out.glb.refine") / "checkpoints").mkdir(parents=True)
    arguments = ("a red cup", "--mesh", "cup.glb", "--keep-shape", "-o", "out.glb")
    assert call(*arguments) == 2
    assert "add --resume" in capsys.readouterr().err
    assert not Path("out.glb").exists()


def _write(name: str) -> None:
    box = trimesh.creation.box()
    if name == "empty.ply":
        trimesh.PointCloud(box.vertices).export(name)
    elif name == "nan.ply":
        box.vertices[0] = np.nan
        box.export(name)
    elif name == "flat.ply":
        trimesh.Trimesh(np.ones((3, 3)), [[0, 1, 2]], process=False).export(name)
    elif name == "large.ply":
        box.subdivide_loop(3).export(name)
    elif name == "html.glb":
        Path(name).write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.glb", "Cannot read 'missing.glb': no such file or directory."),
        ("notes.txt", "Cannot read 'notes.txt' as a mesh; use a file that ends in .glb, .obj, .ply"),
        ("html.glb", "Cannot read html.glb: "),
        ("empty.ply", "'empty.ply' has no faces"),
        ("nan.ply", "Cannot read nan.ply: positions are not finite numbers"),
        ("flat.ply", "The mesh has no extent"),
        ("large.ply", "'large.ply' has 768 faces; reduce it to at most 700"),
    ],
)
def test_unusable_files_are_one_sentence(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(given_mesh, "MOST_FACES", 700)
    _write(name)
    assert call("a red cup", "--mesh", name, "--keep-shape", "-o", "out.glb") == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence), error
    assert error.count("\n") == 1
    assert not Path("out.glb").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a cup", "--prompt", "a hat"], "Give one prompt that says what the object is"),
        (["a cup", "--as", "field", "--keep-shape"], "--keep-shape changes the texture only"),
        (["--mesh", "cup.glb"], "Give one prompt that says what the object is"),
        (
            ["a cup", "--mesh", "cup.glb", "--adapter", "a"],
            "--adapter generates a draft, but a mesh is given",
        ),
        (
            ["a cup", "--image-to-mesh", "p {image} {mesh}"],
            "--image-to-mesh needs a picture; add --image FILE.",
        ),
        (
            ["a red cup", "--mesh", "cup.glb", "--keep-shape", "--teachers", "geometry"],
            "The teacher geometry reads the shape, which texture keeps; choose from rgb, sd.",
        ),
    ],
)
def test_options_that_contradict_are_one_sentence(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    cup().export("cup.glb")
    assert call(*arguments, "-o", "out.glb") == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence), error
    assert error.count("\n") == 1


def test_many_materials_become_one_texture(call: Callable[..., int]) -> None:
    scene = trimesh.Scene()
    for number in range(40):
        box = trimesh.creation.box((1, 1, 1), trimesh.transformations.translation_matrix((number, 0, 0)))
        color = [number * 6, 255 - number * 6, 40, 255]
        box.visual = trimesh.visual.TextureVisuals(
            uv=np.zeros((8, 2)), material=trimesh.visual.material.PBRMaterial(baseColorFactor=color)
        )
        scene.add_geometry(box)
    Path("boxes.glb").write_bytes(scene.export(file_type="glb"))
    assert call("a red cup", "--mesh", "boxes.glb", "--keep-shape", "-o", "out.glb") == 0
    made = trimesh.load(io.BytesIO(Path("out.glb").read_bytes()), file_type="glb", force="mesh")
    assert len(made.faces) == 40 * 12


def test_a_sheet_cannot_become_a_field(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 1, 2]]).export("sheet.ply")
    assert call("a red cup", "--mesh", "sheet.ply", "--as", "field", "-o", "out.glb") == 2
    assert capsys.readouterr().err == (
        "The mesh encloses no volume, so it cannot become a field; close its holes. Or use --as gaussians.\n"
    )
