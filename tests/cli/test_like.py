"""`generate --like FILE`: the settings of a file are used again, and options replace them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.quick import QUICK, load_once
from tests.helpers.shapes import colored
from triplaneturbo.__main__ import main
from triplaneturbo.mesh.io import save
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata, Refinement
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import Request
from triplaneturbo.serving import engine

Cli = Callable[..., tuple[int, str, str]]
SETTINGS = {"resolution": 24, "texture_size": 512, "steps": 2, "faces": None, "watertight": True}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "_load", load_once)

    def run(*argv: str) -> tuple[int, str, str]:
        code = main([*argv, "--device", "cpu", "--quiet"])
        return code, *capsys.readouterr()

    return run


def written(
    path: Path, model: str = "small", refinement: Refinement | None = None, **changes: object
) -> Path:
    """A file with settings, of a mesh that has nothing to do with them."""
    request = Request("a red mushroom", seed=7, **{**SETTINGS, **changes}).checked()  # type: ignore[arg-type]
    placement = Placement(0.25, "z", "ground")
    metadata = GenerationMetadata(request, model, placement, refinement=refinement)
    return save(colored(), path, metadata=metadata)


def test_the_file_made_like_another_one_has_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    quick = [*QUICK, "--watertight", "--no-normal-map", "--size", "0.5", "--pivot", "ground"]
    assert cli("generate", "a red mushroom", "--seed", "3", "-o", "first.glb", *quick)[0] == 0
    code, _, err = cli("generate", "--like", "first.glb", "-o", "second.glb", "--model", "small")
    assert (code, err) == (0, "")
    assert Path("first.glb").read_bytes() == Path("second.glb").read_bytes()


def test_options_of_the_file_itself_are_used_again(cli: Cli) -> None:
    files = ["--texture-format", "webp", "--max-bytes", "40000"]
    code, _, err = cli("generate", "a red mushroom", "-o", "first.glb", *QUICK, "--faces", "300", *files)
    assert code == 0
    assert "To stay within the size limit" in err
    code, _, again = cli("generate", "--like", "first.glb", "-o", "second.glb", "--model", "small")
    assert (code, again) == (0, err)
    assert Path("first.glb").read_bytes() == Path("second.glb").read_bytes()
    code, _, err = cli("generate", "--like", "first.glb", "-o", "third.glb", "--texture-format", "png")
    assert b"EXT_texture_webp" not in Path("third.glb").read_bytes()


def test_options_replace_the_settings_of_the_file(cli: Cli, tmp_path: Path) -> None:
    written(tmp_path / "like.ply")
    code, out, err = cli(
        "generate", "a blue chair", "--like", "like.ply", "--seed", "0", "--no-watertight", "--faces", "150",
        "--up", "y", "-o", "new.glb", "--json", "--model", "small",
    )  # fmt: skip
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert (made["prompt"], made["seed"]) == ("a blue chair", 0)
    expected = SETTINGS | {"watertight": False, "faces": 150}
    assert {name: made["settings"][name] for name in expected} == expected
    assert made["placement"] == {"size": 0.25, "up": "y", "pivot": "ground", "unit": "auto"}


def test_all_settings_of_a_file_are_the_template_of_a_list(cli: Cli, tmp_path: Path) -> None:
    written(tmp_path / "like.ply", watertight=False)
    Path("prompts.txt").write_text("a cup\na boat\n")
    arguments = ["--like", "like.ply", "--prompts", "prompts.txt", "-o", "out", "--format", "ply"]
    code, _, err = cli("generate", *arguments)
    assert (code, err) == (0, "")
    requests = [read_metadata(path).request for path in Path("out").glob("*.ply")]
    assert {request.prompt for request in requests} == {"a cup", "a boat"}
    assert {(request.seed, request.resolution) for request in requests} == {(7, 24)}


def test_another_model_is_announced_and_not_loaded(cli: Cli, tmp_path: Path) -> None:
    written(tmp_path / "like.ply", model="someone/else")
    code, _, err = cli("generate", "--like", "like.ply", "-o", "a.ply", "--model", "small")
    assert code == 0
    assert err.startswith("The file was made with the model 'someone/else', this is 'small'")
    assert read_metadata("a.ply").model == "small"


def test_a_refinement_is_not_repeated_and_that_is_said(cli: Cli, tmp_path: Path) -> None:
    written(tmp_path / "draft.ply")
    written(tmp_path / "refined.ply", refinement=Refinement(60, 20))
    for name in ("draft", "refined"):
        code, _, said = cli("generate", "--like", f"{name}.ply", "-o", f"of-{name}.ply", "--model", "small")
        assert code == 0
    assert said == (
        "The mesh in the file was refined for 20 steps, which is not repeated:"
        " refine the new mesh for that.\n"
    )
    assert Path("of-draft.ply").read_bytes() == Path("of-refined.ply").read_bytes()
    assert read_metadata("of-refined.ply").refinement is None


def test_no_metadata_stores_nothing(cli: Cli, tmp_path: Path) -> None:
    for name, flags in (("told.glb", []), ("plain.glb", ["--no-metadata"])):
        assert cli("generate", "a red mushroom", "-o", name, *QUICK, *flags)[0] == 0
    assert b"a red mushroom" in Path("told.glb").read_bytes()
    assert b"a red mushroom" not in Path("plain.glb").read_bytes()
    code, _, err = cli("generate", "--like", "plain.glb", "-o", "again.glb")
    assert code == 2
    assert "contains no settings" in err


def test_missing_adapter_and_missing_prompt_are_one_sentence(cli: Cli, tmp_path: Path) -> None:
    written(tmp_path / "like.ply", adapter="not-installed")
    code, _, err = cli("generate", "--like", "like.ply", "-o", "a.glb")
    assert code == 2
    assert err.startswith("There is no adapter 'not-installed'")
    code, _, err = cli("generate", "--seed", "1")
    assert code == 2
    assert err.startswith("Give either a prompt")
