"""The command ablate: on the built-in model, on a small full model, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.evaluations import tiny_clip
from tests.helpers.full_toy import small_full
from tests.helpers.one_thread import one_thread
from tests.helpers.shapes import colored
from triplaneturbo.__main__ import main
from triplaneturbo.cli import ablate
from triplaneturbo.distill import memory
from triplaneturbo.evaluate import generated_meshes, protocols
from triplaneturbo.mesh.io import encode
from triplaneturbo.models.catalog import find_model
from triplaneturbo.models.convert import convert_if_needed

__all__ = ["one_thread"]
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command with bad input; it must print one sentence, exit with 2 and write nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red cup\na blue hat\n")

    def run(*argv: str, table: str = "2", model: str = "small") -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        common = ["--table", table, "--to", "to", "--model", model, "--device", "cpu", "--quiet"]
        code = main(["ablate", *common, *argv])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.endswith(".\n")
        assert err.count("\n") == 1, err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return err

    return run


def test_the_built_in_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["ablate", "--table", "6", "--to", str(tmp_path), "--model", "small", "--device", "cpu"]
    argv += ["--iterations", "1", "--batch", "1", "--classes", "1", "--limit", "1", "--seeds", "0"]
    assert main([*argv, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "3 runs of 1 seed each" in out
    assert not list(tmp_path.iterdir())
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out == (tmp_path / "table.md").read_text()
    assert "rank-32-0 (3 of 3): scoring, 1 of 1 iterations" in err
    (table,) = json.loads((tmp_path / "tables.json").read_text())["tables"]
    rows = {row["variant"]: row["results"]["0"] for row in table["rows"]}
    assert [row["parameters"] for row in rows.values()] == sorted(row["parameters"] for row in rows.values())
    for row in rows.values():
        assert row["figures"]["count"] == 1
        assert row["groups"].keys() == {"seen"}
        assert 0 < row["figures"]["volume_iou"] < 1
        assert row["figures"]["color_error"] > 0
        assert row["figures"]["r_at_1"] is not None
    assert "| a grey sphere | - | 0." in out
    assert sum(file.stat().st_size for file in (tmp_path / "pool").iterdir()) < 50e6
    assert main([*argv[:-1], "0", "--limit", "2"]) == 2
    assert "with another list of scored prompts" in capsys.readouterr().err


def test_the_full_model(
    parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_full(parity, tmp_path / "full", monkeypatch)
    # Counting the teachers' memory takes most of the time of a plan.
    monkeypatch.setattr(memory, "teacher", lambda *_: memory.TeacherMemory(2**20, 2**20, 2**20))
    monkeypatch.setattr(generated_meshes, "warmup", lambda: None)
    mesh = encode(colored(4, 6), "glb")
    monkeypatch.setattr(generated_meshes, "_generate", lambda *_: (mesh, {"mesh": 1.0, "glb": 2.0}))
    small_views = replace(protocols.PRD, views=replace(protocols.PRD.views, size=32))
    monkeypatch.setattr(protocols, "PRD", small_views)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cup\na blue hat\n")
    argv = ["ablate", "--table", "2", "--to", str(tmp_path / "to"), "--model", str(model), "--device", "cpu"]
    argv += ["--prompts", str(prompts), "--test-prompts", str(prompts), "--limit", "1"]
    argv += [
        "--clip",
        str(tiny_clip(tmp_path / "clip")),
        "--iterations",
        "1",
        "--batch",
        "1",
        "--scored",
        "1",
    ]
    assert main([*argv, "--dry-run", "--memory", "0.01"]) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("The run proposed cannot start: This run needs")
    )
    assert not (tmp_path / "to").exists()
    assert main([*argv, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert plan.count("trainable parameters") == plan.count("The run takes") == 3
    assert "one-step: 1 iterations, 0.0 h on eight H20 GPUs" in plan
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "The run takes" in err
    (table,) = json.loads((tmp_path / "to" / "tables.json").read_text())["tables"]
    rows = {row["variant"]: row["results"]["0"]["figures"] for row in table["rows"]}
    assert rows.keys() == {"one-step", "two-steps", "proposed"}
    for figures in rows.values():
        assert figures.keys() == {
            "cosine", "clip_score", "r_at_1_view", "r_at_1_object", "empty"
        }  # fmt: skip
    assert json.loads((tmp_path / "to" / "evaluation" / "evaluation.json").read_text())["prompts"] == [
        "a red cup", "a blue hat",
    ]  # fmt: skip
    evaluated = json.loads((tmp_path / "to" / "evaluation" / "scores.json").read_text())["results"]
    assert sorted((r["identity"]["adapter"], r["identity"]["steps"]) for r in evaluated) == [
        ("one-step-0", 1), ("proposed-0", 4), ("two-steps-0", 2),
    ]  # fmt: skip
    assert "1 prompt, judged by clip among 2" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--iterations", "0"], "The number of optimizer steps should be"),
        (["--batch", "0"], "The batch should be"),
        (["--rate", "1"], "The learning rate should be"),
        (["--scored", "-1"], "The number of scored steps should be"),
        (["--seeds", "x"], "Invalid --seeds 'x'"),
        (["--seeds", "-1"], "Invalid --seeds '-1'"),
        (["--limit", "0"], "Invalid --limit 0"),
        (["--classes", "13"], "Invalid --classes 13; use 1 to 12"),
        (["--prompts", "prompts.txt"], "--prompts applies to the full model"),
        (["--test-prompts", "prompts.txt"], "--test-prompts applies to the full model"),
        (["--memory", "8"], "--memory applies to the full model"),
    ],
)
def test_invalid_options(refused: Refused, argv: list[str], message: str) -> None:
    assert message in refused(*argv)


def test_unknown_table_and_model(refused: Refused) -> None:
    assert "There is no table '7'; use 2, 3, 4, 5, 6 or all" in refused(table="7")
    assert "There is no model 'nowhere'" in refused(model="nowhere")


def test_the_full_model_needs_prompts(
    parity: Path,
    refused: Refused,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = str(small_full(parity, tmp_path / "full", monkeypatch))
    convert_if_needed(find_model(model, False))
    capsys.readouterr()
    assert "give one of them" in refused(model=model)
    both = ("--prompts", "prompts.txt", "--corpus", "prompts.txt")
    assert "give one of them" in refused(*both, model=model)
    assert "--classes applies to the toy world" in refused("--classes", "1", model=model)
    monkeypatch.setattr(ablate, "DREAMFUSION", tmp_path / "library.json")
    assert "library.json, or use --test-prompts FILE" in refused("--prompts", "prompts.txt", model=model)
    assert "There is no CLIP 'nowhere'" in refused(
        "--prompts", "prompts.txt", "--test-prompts", "prompts.txt", "--clip", "nowhere", model=model
    )
