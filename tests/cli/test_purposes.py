"""`generate --for PURPOSE`: the settings, the files and the formats of each purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh

from tests.helpers.quick import load_once
from triplaneturbo.__main__ import main
from triplaneturbo.cli import generate
from triplaneturbo.cli.settings import Settings, read_settings
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.serving import engine
from triplaneturbo.serving.purposes import PURPOSES

FAST = ["--resolution", "24", "--steps", "1", "--texture-size", "512", "--device", "cpu", "--quiet"]
Cli = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Generate with --json; the described files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "_load", load_once)

    def run(*argv: str) -> list[dict[str, Any]]:
        assert main(["generate", "a red mushroom", *argv, *FAST, "--json"]) == 0
        files: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["files"]
        return files

    return run


def settings(*argv: str) -> Settings:
    import argparse

    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return read_settings(parser.parse_args(["a cup", *argv]))


def test_options_replace_the_values_of_a_purpose() -> None:
    plain = settings("--for", "print")
    assert plain.request.watertight
    assert plain.options.placement == Placement(0.1, "z", "ground", "mm")
    own = settings("--for", "print", "--size", "0.2", "--no-watertight", "--up", "y")
    assert not own.request.watertight
    assert own.options.placement == Placement(0.2, "y", "ground", "mm")


@pytest.mark.parametrize("name", PURPOSES)
def test_purpose_chooses_the_formats_unless_they_are_given(name: str) -> None:
    assert settings("--for", name).formats == ",".join(PURPOSES[name].formats)
    assert settings("--for", name, "-o", "folder/").formats == ",".join(PURPOSES[name].formats)
    assert settings("--for", name, "-o", "cup.ply").formats is None
    assert settings("--for", name, "--format", "ply").formats == "ply"


def test_unknown_purpose_is_one_sentence() -> None:
    with pytest.raises(UserError, match="Unknown purpose 'fun'; use one of print, game, web, ar"):
        settings("--for", "fun")


def test_print_is_a_solid_in_millimetres_on_the_ground(cli: Cli) -> None:
    files = cli("--for", "print", "-o", "out/")
    assert [Path(file["path"]).suffix for file in files] == [".stl", ".3mf"]
    assert [file["unit"] for file in files] == ["mm", "mm"]
    solid = trimesh.load(files[0]["path"])
    assert solid.is_watertight
    assert solid.extents.max() == pytest.approx(100, rel=1e-5)
    assert solid.bounds[0][2] == 0


def test_game_has_levels_of_detail_in_one_file_and_in_files(cli: Cli) -> None:
    files = cli("--for", "game", "-o", "out/", "--lod-files")
    names = [Path(file["path"]).name for file in files]
    assert [name.rpartition("-")[2] for name in names[1:]] == [f"LOD{level}.glb" for level in range(4)]
    faces = [len(trimesh.load(file["path"], force="mesh").faces) for file in files]
    assert faces[0] == faces[1] <= 10_000
    assert faces[1] > faces[2] > faces[3] > faces[4]
    low = [trimesh.load(file["path"], force="mesh").bounds[0][1] for file in files]
    assert low == pytest.approx([0] * 5, abs=0.05)


def test_files_of_levels_are_within_the_size_limit(cli: Cli) -> None:
    limits = ["--faces", "600", "--lods", "2", "--lod-files", "--texture-format", "webp"]
    full = cli("-o", "full/", *limits)
    small = cli("-o", "small/", *limits, "--max-bytes", str(full[1]["bytes"] - 1))
    assert [Path(file["path"]).stat().st_size for file in small] == [file["bytes"] for file in small]
    assert all(file["bytes"] < full[1]["bytes"] for file in small)
    assert ["note" in file for file in small[:2]] == [True, True]


def test_batch_with_files_of_levels_does_not_skip_meshes_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "_load", load_once)
    Path("prompts.txt").write_text("cup|a cup\n")
    skipped = []
    for flags in ([], ["--lod-files"], ["--lod-files"]):
        options = ["--prompts", "prompts.txt", "-o", "out", "--model", "small", *FAST, "--json"]
        assert main(["generate", *options, *flags]) == 0
        skipped.append(json.loads(capsys.readouterr().out)["skipped"])
    assert skipped == [0, 0, 1]
    assert Path("out", "cup-LOD0.glb").is_file()


def test_web_is_webp_within_a_megabyte(cli: Cli) -> None:
    (file,) = cli("--for", "web", "-o", "out/")
    data = Path(file["path"]).read_bytes()
    assert len(data) == file["bytes"] <= 1_000_000
    assert b"EXT_texture_webp" in data


def test_ar_is_glb_and_usdz_in_metres(cli: Cli) -> None:
    files = cli("--for", "ar", "-o", "out/")
    assert [(Path(file["path"]).suffix, file["unit"]) for file in files] == [(".glb", "m"), (".usdz", "m")]
    scene = trimesh.load(files[0]["path"], force="mesh")
    assert scene.extents.max() == pytest.approx(0.5, rel=1e-5)
    assert scene.bounds[0][1] == pytest.approx(0, abs=1e-6)
