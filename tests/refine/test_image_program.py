"""The program that turns a picture into a mesh: its arguments, its failures, and its result."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.refine.given_image import GivenImage, read_given_image
from triplaneturbo.refine.image_program import mesh_of, parsed_command

MAKER = """
import sys, pathlib, trimesh
from PIL import Image
assert Image.open(sys.argv[1]).mode == "RGBA"
with open(pathlib.Path(sys.argv[0]).with_name("calls.txt"), "a") as log:
    print(sys.argv[3:], file=log)
trimesh.creation.box().export(sys.argv[2])
"""


@pytest.fixture
def image(tmp_path: Path) -> GivenImage:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (16, 16, 48, 48))
    picture.save(tmp_path / "box.png")
    return read_given_image(tmp_path / "box.png")


def program(tmp_path: Path, text: str) -> str:
    """Return a command that runs a Python program whose path has a space."""
    script = tmp_path / "a maker.py"
    script.write_text(text)
    return f'"{sys.executable}" "{script}" {{image}} {{mesh}}'


def test_the_mesh_of_a_program_is_read_and_made_only_once(tmp_path: Path, image: GivenImage) -> None:
    command = program(tmp_path, MAKER) + ' "$(touch hacked)" ";"'
    first = mesh_of(command, image, tmp_path / "run")
    assert len(first.mesh.faces) == 12
    assert mesh_of(command, image, tmp_path / "run").digest == first.digest
    assert (tmp_path / "calls.txt").read_text() == "['$(touch hacked)', ';']\n"  # no shell has read them


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import sys; print('no model found', file=sys.stderr); sys.exit(3)",
            "(exit code 3): no model found",
        ),
        ("pass", "made no mesh (exit code 0): no message"),
        ("import sys; open(sys.argv[2], 'w').write('<html>')", "Cannot read "),
        ("import time; time.sleep(60)", "made no mesh within 1 s."),
    ],
)
def test_a_program_that_fails_is_one_sentence(
    tmp_path: Path, image: GivenImage, text: str, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        mesh_of(program(tmp_path, text), image, tmp_path / "run", timeout=1 if "sleep" in text else 60)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "image" / "mesh.glb").exists()


def test_a_missing_program_is_one_sentence(tmp_path: Path, image: GivenImage) -> None:
    with pytest.raises(UserError, match="Cannot run '/no/such/program': no such file"):
        mesh_of("/no/such/program {image} {mesh}", image, tmp_path)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("maker {image}", "--image-to-mesh lacks {mesh}"),
        ("maker {mesh}", "--image-to-mesh lacks {image}"),
        ("{image} {mesh}", "--image-to-mesh lacks {image}"),
        ("maker '{image} {mesh}", "no closing quotation"),
    ],
)
def test_a_malformed_command_is_one_sentence(command: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed_command(command)
    assert sentence in str(caught.value)


def test_another_picture_or_command_makes_another_mesh(tmp_path: Path, image: GivenImage) -> None:
    command, run = program(tmp_path, MAKER), tmp_path / "run"
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("blue", (8, 16, 48, 48))
    picture.save(tmp_path / "other.png")
    other = read_given_image(tmp_path / "other.png")
    for source, words in ((image, command), (other, command), (other, f"{command} again")):
        for _ in range(2):
            mesh_of(words, source, run)
    assert (tmp_path / "calls.txt").read_text() == "[]\n[]\n['again']\n"


def test_the_mesh_of_a_program_that_fails_for_another_picture_is_not_reused(
    tmp_path: Path, image: GivenImage
) -> None:
    command = program(tmp_path, MAKER)
    mesh_of(command, image, tmp_path / "run")
    with pytest.raises(UserError, match="Cannot run"):
        mesh_of("/no/such/program {image} {mesh}", image, tmp_path / "run")
    mesh_of(command, image, tmp_path / "run")
    assert (tmp_path / "calls.txt").read_text() == "[]\n"
