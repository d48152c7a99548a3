"""The command line, in this process wherever possible."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from tests.helpers.quick import QUICK, load, load_once
from triplaneturbo import __version__
from triplaneturbo.__main__ import main
from triplaneturbo.cli import doctor, generate
from triplaneturbo.pipeline import STAGES
from triplaneturbo.representations.triplane import FieldDecoder
from triplaneturbo.request import DEFAULT_FACES
from triplaneturbo.serving import engine

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_load", load_once)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(list(argv))
        except SystemExit as leaving:
            code = leaving.code
        return code, *capsys.readouterr()

    return run


def test_generate_json_describes_the_file(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("generate", "a red mushroom", "-o", "mushroom.glb", "--seed", "7", "--json", *QUICK)
    assert code == 0, err
    made = json.loads(out)
    assert [path.name for path in tmp_path.iterdir()] == ["mushroom.glb"]
    data = (tmp_path / "mushroom.glb").read_bytes()
    assert made["files"] == [
        {"path": "mushroom.glb", "unit": "m", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ]
    assert list(made["seconds"]) == [*STAGES, "files", "total"]
    assert (made["prompt"], made["seed"], made["model"]) == ("a red mushroom", 7, "small")
    assert (made["device"], made["precision"], made["version"]) == ("cpu", "float32", __version__)
    assert made["settings"] == {
        "steps": 2,
        "resolution": 24,
        "faces": DEFAULT_FACES,
        "texture_size": 512,
        "unwrap": "fast",
        "normal_map": True,
        "floaters": 0.02,
        "smoothing": 0,
        "watertight": False,
        "variation": 0.0,
        "variation_seed": 0,
        "blend": "",
        "blend_weight": 0.5,
        "adapter": "",
        "variation_path": "",
        "look": "",
        "keep_shape": False,
        "lods": 1,
    }
    scene = trimesh.load(io.BytesIO(data), file_type="glb")
    (part,) = scene.geometry.values()
    assert (len(part.vertices), len(part.faces)) == (made["vertices"], made["faces"])


def test_variation_and_blend_options(cli: Cli) -> None:
    mixing = ["--variation", "0.2", "--variation-seed", "3", "--blend", "a hat", "--blend-weight", "0.75"]
    mixing += ["--variation-path", "17:0.1"]
    code, out, err = cli("generate", "a cup", "-o", "cup.glb", *mixing, "--json", *QUICK)
    assert code == 0, err
    settings = json.loads(out)["settings"]
    names = ("variation", "variation_seed", "variation_path", "blend", "blend_weight")
    assert [settings[name] for name in names] == [0.2, 3, "17:0.1", "a hat", 0.75]


def test_generation_is_deterministic_across_processes(cli: Cli, tmp_path: Path) -> None:
    command = ["generate", "a red mushroom", "-o", "mushroom.glb", "--json", *QUICK]
    here = json.loads(cli(*command)[1])
    (tmp_path / "mushroom.glb").unlink()
    threads = str(torch.get_num_threads())  # on which the last bits depend
    done = subprocess.run(
        [sys.executable, "-m", "triplaneturbo", *command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": threads,
        },
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=True,
    )
    there = json.loads(done.stdout)  # nothing else is on standard output
    assert there["files"] == here["files"]
    assert re.search(r"^device +cpu", done.stderr, re.MULTILINE)
    assert "\r" not in done.stderr  # no progress bar where there is no terminal


def test_count_option_writes_numbered_files(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli(
        "generate", "a cup", "-o", "cups/cup.glb", "--seed", "5", "--count", "2", "--json", *QUICK
    )
    assert code == 0
    made = json.loads(out)["meshes"]
    assert [(mesh["seed"], mesh["files"][0]["path"]) for mesh in made] == [
        (5, "cups/cup-1.glb"),
        (6, "cups/cup-2.glb"),
    ]
    assert len({mesh["files"][0]["sha256"] for mesh in made}) == 2
    assert sorted(path.name for path in (tmp_path / "cups").iterdir()) == ["cup-1.glb", "cup-2.glb"]


def test_several_formats_with_one_output_line_per_mesh(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("generate", "a cup", "-o", "cup.glb", "--format", "glb,obj,ply,stl,usdz", *QUICK)
    assert code == 0
    names = ["cup.glb", "cup.zip", "cup.ply", "cup.stl", "cup.usdz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert re.fullmatch(rf"{' '.join(names)}  \d+ vertices, \d+ faces, \d+\.\d s\n", out)


def test_default_file_name_comes_from_the_prompt(cli: Cli, tmp_path: Path) -> None:
    assert cli("generate", "../../x 🍄 'q\" /etc", *QUICK)[0] == 0
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert re.fullmatch(r"outputs/x-q-etc-0-[0-9a-f]{8}\.glb", path.relative_to(tmp_path).as_posix())


def test_faces_zero_disables_simplification(cli: Cli) -> None:
    light = json.loads(cli("generate", "a cup", "-o", "a.glb", "--faces", "200", "--json", *QUICK)[1])
    whole = json.loads(cli("generate", "a cup", "-o", "b.glb", "--faces", "0", "--json", *QUICK)[1])
    assert light["faces"] <= 220 < whole["faces"]
    assert light["surface_faces"] == whole["surface_faces"]


def test_mesh_and_placement_options(cli: Cli) -> None:
    code, out, err = cli(
        *("generate", "a cup", "-o", "cup.glb", "--format", "glb,stl", "--json", *QUICK),
        *("--smoothing", "5", "--watertight", "--floaters", "0.5", "--faces", "400"),
        *("--size", "0.08", "--up", "z", "--pivot", "ground"),
    )
    assert code == 0, err
    assert "GLB files are always y-up" in err
    made = json.loads(out)
    assert made["placement"] == {"size": 0.08, "up": "z", "pivot": "ground", "unit": "auto"}
    assert [file["unit"] for file in made["files"]] == ["m", "mm"]
    asked = {"smoothing": 5, "watertight": True, "floaters": 0.5, "normal_map": False}
    assert asked.items() <= made["settings"].items()
    for path, height, long in (("cup.glb", 1, 0.08), ("cup.stl", 2, 80)):
        low, high = trimesh.load(path, force="mesh").bounds
        assert max(high - low) == pytest.approx(long)
        assert low[height] == 0
    assert trimesh.load("cup.stl").is_volume


def test_unit_applies_to_formats_without_a_prescribed_unit(cli: Cli) -> None:
    command = ["generate", "a cup", "-o", "cup.glb", "--format", "glb,ply,stl", "--json", *QUICK]
    code, out, err = cli(*command, "--size", "0.0254", "--unit", "in")
    assert code == 0, err
    assert "GLB files are always in metres" in err
    made = json.loads(out)
    assert made["placement"]["unit"] == "in"
    assert [file["unit"] for file in made["files"]] == ["m", "in", "in"]
    longest = [max(trimesh.load(f"cup.{end}", force="mesh").extents) for end in ("glb", "ply", "stl")]
    assert longest == pytest.approx([0.0254, 1, 1], rel=1e-5)


def test_stl_without_size_warns_about_its_length(cli: Cli) -> None:
    assert "set --size to print" in cli("generate", "a cup", "-o", "cup.stl", *QUICK)[2]
    assert "set --size to print" not in cli("generate", "a cup", "-o", "cup.stl", "--size", "0.1", *QUICK)[2]


def test_batch_with_other_placement_is_written_again(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cup\n")
    command = ["generate", "--prompts", "prompts.txt", "-o", "meshes", "--json", *QUICK]
    skipped = []
    orders = [[], ["--size", "1"], ["--size", "1"], ["--size", "2"], [], ["--unit", "mm"]]  # a GLB has metres
    orders += [["--format", "stl"], ["--format", "stl", "--unit", "mm"], ["--format", "stl", "--unit", "m"]]
    for more in orders:
        code, out, _ = cli(*command, *more)
        assert code == 0
        skipped.append(json.loads(out)["skipped"])
    assert skipped == [0, 0, 1, 0, 1, 1, 0, 1, 0]


def test_batch_skips_existing_files(cli: Cli, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\ufeffa cup\n\n  a hat  \r\na cup\n🍄\n", encoding="utf-8")
    command = ["generate", "--prompts", "prompts.txt", "-o", "meshes", "--json", *QUICK]
    code, out, _ = cli(*command)
    assert code == 0
    first = json.loads(out)
    assert [mesh["prompt"] for mesh in first["meshes"]] == ["a cup", "a hat", "🍄"]
    manifest = tmp_path / "meshes" / "manifest.jsonl"
    entries = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    files = {entry["files"][0]["path"] for entry in entries}
    there = {path.name for path in manifest.parent.iterdir()} - {".manifest.jsonl.lock"}
    assert files | {"manifest.jsonl"} == there
    for entry in entries:
        data = (manifest.parent / entry["files"][0]["path"]).read_bytes()
        assert entry["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()

    def no_engine(_: object) -> None:
        raise AssertionError("no model is to be loaded where nothing is to be made")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_engine", no_engine)
        code, out, _ = cli(*command)
    assert (code, json.loads(out)) == (0, {"meshes": [], "skipped": 3, "without_surface": []})

    lost = manifest.parent / entries[1]["files"][0]["path"]
    lost.unlink()
    code, out, _ = cli(*command)
    again = json.loads(out)
    assert [mesh["prompt"] for mesh in again["meshes"]] == ["a hat"]
    assert again["skipped"] == 2
    assert hashlib.sha256(lost.read_bytes()).hexdigest() == entries[1]["files"][0]["sha256"]
    assert len(manifest.read_text(encoding="utf-8").splitlines()) == 3

    code, out, _ = cli(*[argument for argument in command if argument != "--json"])
    assert (code, out) == (0, "Skipped 3 of 3 meshes, which exist already.\n")


@pytest.fixture
def empty_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the field of every model loaded from now on empty: its sphere has a negative radius."""
    made = FieldDecoder.__init__

    def with_nothing(self: FieldDecoder, config) -> None:
        made(self, replace(config, sphere_radius=-1000.0))

    monkeypatch.setattr(FieldDecoder, "__init__", with_nothing)
    monkeypatch.setattr(engine, "_load", load)


@pytest.mark.usefixtures("empty_field")
def test_empty_surface_has_exit_code_3(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("generate", "a cup", "-o", "cup.glb", "--json", "--quiet", *QUICK)
    assert (code, out) == (3, "")
    assert err.splitlines()[-1] == "The model found no surface for this prompt; try another seed."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("empty_field")
def test_empty_surface_does_not_stop_a_batch(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cup\na hat\n")
    code, out, err = cli("generate", "--prompts", "prompts.txt", "-o", "meshes", "--json", *QUICK)
    assert code == 3
    assert [entry["prompt"] for entry in json.loads(out)["without_surface"]] == ["a cup", "a hat"]
    assert err.count("found no surface") == 2
    assert not (tmp_path / "meshes").exists()


@pytest.mark.usefixtures("empty_field")
def test_empty_surface_does_not_stop_other_processes(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    (tmp_path / "prompts.txt").write_text("a cup\na hat\n")
    code, _, err = cli("generate", "--prompts", "prompts.txt", "-o", "meshes", "--device", "cpu", *QUICK)
    assert code == 0  # a launcher takes anything else for a failure of all
    assert err.count("found no surface") == 1


def test_progress_bar_shows_the_stages(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    code, _, _ = cli("generate", "a cup", "-o", "cup.glb", *QUICK)
    assert code == 0
    text = terminal.getvalue()
    assert "denoise 1/2" in text
    assert "denoise 2/2" in text
    for stage in STAGES:
        assert re.search(rf"\r{stage}", text), stage


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a b'\"c.glb", "a b'\"c.glb"), ("new\nline.glb", "new\\nline.glb"), ("\x1b[31m.glb", "\\x1b[31m.glb")]
    + [("-x.glb", "-x.glb"), ("dots..glb", "dots..glb"), ("cafe\u0301.glb", "cafe\u0301.glb")]
    + [("\udcff.glb", "\\udcff.glb"), ("x" * 251 + ".glb", "x" * 251 + ".glb")],
    ids=ascii,
)
def test_any_file_name_is_printed_in_one_line(cli: Cli, tmp_path: Path, name: str, shown: str) -> None:
    code, out, err = cli("generate", "a cup", f"--output={name}", "--quiet", *QUICK)
    assert (code, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert re.fullmatch(re.escape(shown) + r"  \d+ vertices, \d+ faces, \d+\.\d s\n", out)


def test_unencodable_file_names_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert generate._printable("caf\xe9 猫.glb") == "caf\\xe9 \\u732b.glb"


def test_output_follows_links_and_expands_home(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "old.glb").symlink_to("new.glb")
    assert cli("generate", "a cup", "--output=old.glb", *QUICK)[0] == 0
    assert (tmp_path / "old.glb").is_symlink()
    assert (tmp_path / "new.glb").read_bytes().startswith(b"glTF")
    assert cli("generate", "a cup", "--output=~/cup.glb", *QUICK)[0] == 0
    assert (tmp_path / "home" / "cup.glb").is_file()
    assert not (tmp_path / "~").exists()


def test_quiet_prints_nothing(cli: Cli) -> None:
    code, _, err = cli("generate", "a cup", "-o", "cup.glb", "--quiet", *QUICK)
    assert code == 0
    assert err == ""


def test_doctor_finds_no_problem_here(cli: Cli) -> None:
    code, out, _ = cli("doctor")
    lines = out.splitlines()
    for what in (
        "python",
        "free disk",
        "free memory",
        "torch",
        "device",
        "bfloat16 on the CPU",
        "rasteriser",
    ):
        assert any(line.startswith(f"ok    {what} ") for line in lines), what
    assert any(re.match(r"ok    small model .*checkpoints/small", line) for line in lines)
    assert (code, lines[-1]) == (0, "No problems found."), out


def test_doctor_suggests_remedies(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: [("torch", "999.0"), ("no-such-package", "1.0")])
    monkeypatch.setattr(doctor, "SMALL", tmp_path)
    monkeypatch.setattr("triplaneturbo.models.catalog.SMALL", tmp_path)
    code, out, _ = cli("doctor")
    assert code == 1
    assert re.search(r"FIX   torch .*\n +-> 999\.0 or newer is needed; run: make setup", out)
    assert re.search(r"FIX   no-such-package +missing\n +-> run: make setup", out)
    assert re.search(r"FIX   small model .*\n +-> restore", out)
    assert out.splitlines()[-1] == "Problems found: 3. Arrows show how to fix them."


def test_doctor_reports_misplaced_adapters(cli: Cli, tmp_path: Path) -> None:
    from triplaneturbo.models.adapters import ADAPTERS, FILE

    (ADAPTERS / "My LoRA").mkdir(parents=True)
    try:
        (ADAPTERS / "My LoRA" / FILE).write_bytes(b"x")
        code, out, _ = cli("doctor")
    finally:
        shutil.rmtree(ADAPTERS / "My LoRA")
    assert code == 1
    assert re.search(r"FIX   adapter .*'My LoRA' is invalid\n +-> rename it to my-lora", out)


def test_doctor_checks_every_requirement() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(doctor.requirements((99, 0))) == len(lines) > 10


def test_doctor_respects_python_version_markers() -> None:
    assert "uvunwrap" in dict(doctor.requirements((3, 11)))
    assert "uvunwrap" not in dict(doctor.requirements((3, 10)))
