"""refine --image: the nearest caption, meshes of a program, pictures on the way, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.gltf_validator import assert_valid_glb
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.models.config import OPEN

MAKER = "import sys, trimesh; trimesh.creation.box().export(sys.argv[2])"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def call(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (16, 16, 48, 40))
    picture.save("box.png")

    def call(*arguments: str, name: str = model) -> int:
        return main(["refine", *arguments, "--model", name, "--device", "cpu", "-o", "out.glb"])

    return call


QUICK = ("--steps", "2", "--texture-size", "512")


def test_a_picture_is_refined_with_the_nearest_caption_of_the_built_in_model(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--image", "box.png", *QUICK, name="small") == 0
    error = capsys.readouterr().err
    assert "The picture is nearest to 'a" in error
    assert "--prompt replaces this caption." in error
    assert "The picture shows the asset from an azimuth of" in error
    assert "network" not in error
    assert sorted(path.name for path in Path().iterdir()) == ["box.png", "out.glb"]
    assert_valid_glb(Path("out.glb").read_bytes())


def test_pictures_are_written_on_the_way(call: Callable[..., int]) -> None:
    arguments = ("a red box", "--image", "box.png", "--pictures", "on/the way", "--every", "2", "--quiet")
    assert call(*arguments, "--steps", "3", "--texture-size", "512") == 0
    names = sorted(path.name for path in Path("on/the way").iterdir())
    assert names == ["step-00000.png", "step-00002.png", "step-00003.png"]
    first, last = (Image.open(Path("on/the way") / name) for name in (names[0], names[-1]))
    assert first.size == (4 * 128, 128)
    assert first.tobytes() != last.tobytes()


def test_a_program_makes_the_mesh_that_is_refined(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    command = f'"{sys.executable}" -c "{MAKER}" {{image}} {{mesh}}'
    assert call("a red box", "--image", "box.png", "--image-to-mesh", command, "--as", "texture", *QUICK) == 0
    assert not list(Path().glob("*.refine"))
    assert "azimuth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--image", "box.png", "--quiet"], "No CLIP model found in"),
        (["a box", "--image", "no.png"], "Cannot read 'no.png': no such file or directory."),
        (["a box", "--image", "box.png", "--image-to-mesh", "p {image}"], "--image-to-mesh lacks {mesh};"),
        (["a box", "--image", "box.png", "--every", "0"], "Invalid --every 0; use 1 or more."),
        (["a box", "--adapter", "missing"], "There is no adapter 'missing'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error, error
    assert "Traceback" not in error
    assert not Path("out.glb").exists()


def test_an_open_vocabulary_needs_a_program_or_a_mesh(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tiny_model(tmp_path / "open", domain=OPEN))
    assert call("a red box", "--image", "box.png", "--quiet", name=name) == 2
    assert capsys.readouterr().err == (
        "open cannot turn a picture into a shape; give a mesh, or a program that makes one."
        ' Use --mesh FILE, or --image-to-mesh "PROGRAM {image} {mesh}".\n'
    )
