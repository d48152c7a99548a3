"""Ablations: trained, scored, resumed after any kill, shared by processes, tabulated."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.helpers import toy
from tests.helpers.ablations import BUDGET, die_at_write, setup_toy, small_ablation, train_together
from tests.helpers.one_thread import one_thread
from tests.helpers.runs import trainer
from tests.helpers.training_setups import MODEL_FILES
from tests.helpers.workers import forked
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate import ablation_training
from triplaneturbo.evaluate.ablation_report import markdown
from triplaneturbo.evaluate.ablation_scores import Figure
from triplaneturbo.evaluate.ablation_tables import TABLES
from triplaneturbo.evaluate.ablation_training import _both_renderings
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.utils.distributed import DistributedContext, run

__all__ = ["one_thread"]
TABLE_2 = ("one-step", "proposed", "two-steps")


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train toys."""
    monkeypatch.setattr(ablation_training, "prepare", setup_toy)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ablation of Table 2."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_training, "prepare", setup_toy)
        small_ablation(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of a finished ablation."""
    return shutil.copytree(whole, tmp_path / "copy")


def count_steps(patch: pytest.MonkeyPatch, interrupted: int = -1) -> list[int]:
    """Return a list that grows with each iteration; Ctrl-C in the one of a given number."""
    real, steps = ablation_training.Trainer.step, []

    def step(self: ablation_training.Trainer) -> dict[str, float]:
        steps.append(self.iteration)
        if len(steps) - 1 == interrupted:
            raise KeyboardInterrupt
        return real(self)

    patch.setattr(ablation_training.Trainer, "step", step)
    return steps


def adapters(folder: Path) -> dict[str, bytes]:
    """The adapters of an ablation by run."""
    return {path.parent.name: path.read_bytes() for path in sorted((folder / "adapters").glob("*/*"))}


def test_every_run_of_all_tables_trains_and_differs(tmp_path: Path) -> None:
    text, scorer = small_ablation(tmp_path, tuple(TABLES), budget=replace(BUDGET, iterations=1))
    assert len(set(scorer.scored)) == len(scorer.scored) == 12
    # The toys have no teacher "sd": the run without it is the proposed one.
    assert len(set(adapters(tmp_path).values())) == 11
    assert text == (tmp_path / "table.md").read_text()
    assert text.count("| nothing at all | - | 0 |") == 5
    for title in ("Table 2: number of steps K", "Table 3: adaptation", "Table 6: rank of PETA"):
        assert title in text
    assert not list(tmp_path.rglob("*.pt"))  # checkpoints take gigabytes
    whole = json.loads((tmp_path / "tables.json").read_text())
    rows = {row["variant"]: row for table in whole["tables"] for row in table["rows"]}
    assert rows["one-step"]["quoted"] == {"clip_score": "50.9", "r_at_1": "14.4"}
    result = rows["full-tuning"]["results"]["0"]
    assert (result["iterations"], result["diverged"]) == (1, "")
    assert result["seconds"] > 0 < result["cpu_seconds"]
    assert result["parameters"] > rows["proposed"]["results"]["0"]["parameters"]
    assert "results" not in result


def test_finished_runs_are_kept_and_more_seeds_are_added(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    text, scorer = small_ablation(folder, seeds=(0, 1))
    assert sorted(scorer.scored) == [f"{name}-1" for name in TABLE_2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert " to " in text.split("K = 4")[1].split("|")[2]  # lowest and highest of the seeds
    made = adapters(folder)
    assert made["proposed-0"] != made["proposed-1"]


def test_a_killed_ablation_resumes(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The writes before: ablation.json, the checkpoint of iteration 0, that of iteration 1 and its cost.
    process = forked(die_at_write, tmp_path, 5)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "table.md").exists()
    steps = count_steps(monkeypatch)
    small_ablation(tmp_path)
    assert len(steps) == 1 + 2 + 2
    assert adapters(tmp_path) == adapters(whole)


def test_two_processes_train_each_run_together(whole: Path, tmp_path: Path) -> None:
    run(train_together, (tmp_path,), 2, "cpu")
    assert (tmp_path / "scored.txt").read_text().splitlines() == ["proposed-0", "one-step-0", "two-steps-0"]
    together, alone = adapters(tmp_path), adapters(whole)
    assert together.keys() == alone.keys()
    # Each has learned from both processes' prompts.
    assert all(together[name] != alone[name] for name in alone)
    assert small_ablation(tmp_path)[1].scored == []


def test_an_interrupted_run_resumes_where_it_stopped(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count_steps(monkeypatch, interrupted=1)
    with pytest.raises(KeyboardInterrupt):
        small_ablation(tmp_path)
    place = tmp_path / "runs" / "proposed-0"
    cost = json.loads((place / "cost.json").read_text())
    assert cost["iteration"] == 1
    small_ablation(tmp_path)
    assert len(steps) == 2 + 1 + 4
    assert adapters(tmp_path) == adapters(whole)
    assert json.loads((place / "training.json").read_text())["seconds"] > cost["seconds"]


def test_a_run_of_another_process_is_skipped(folder: Path) -> None:
    place = folder / "runs" / "proposed-0"
    for name in ("training.json", "result.json"):
        (place / name).unlink()
    with FileLock(place / "lock"):
        text, scorer = small_ablation(folder)
        assert scorer.scored == []
        assert "Unfinished: proposed-0." in text
    text, scorer = small_ablation(folder)
    assert scorer.scored == ["proposed-0"]
    assert "Unfinished" not in text


@pytest.mark.parametrize(("budget", "what"), [({"iterations": 3}, "budget"), ({"equal": "passes"}, "budget")])
def test_another_ablation_in_the_folder(folder: Path, budget: dict, what: str) -> None:
    with pytest.raises(UserError, match=f"holds an ablation with another {what}; use another --to"):
        small_ablation(folder, budget=replace(BUDGET, **budget))


def test_a_broken_record(folder: Path) -> None:
    (folder / "runs" / "proposed-0" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"Cannot read .*result\.json .*delete it"):
        small_ablation(folder)


def test_a_diverged_run_is_scored_at_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config, *rest):
        setup = yield from setup_toy(config, *rest)
        if config.steps == 2:
            return replace(setup, teachers=[toy.Broken("predict", 1)])
        return setup

    monkeypatch.setattr(ablation_training, "prepare", broken)
    text, scorer = small_ablation(tmp_path)
    assert len(scorer.scored) == 3
    assert "two-steps, seed 0: diverged, and is scored at iteration 0." in text
    assert "proposed, seed 0" not in text
    record = json.loads((tmp_path / "runs" / "two-steps-0" / "training.json").read_text())
    assert "not finite" in record["diverged"]


def test_shapes_are_taught_without_the_volume(tmp_path: Path) -> None:
    """With the recipe's settings, no teacher would see the shape."""
    config = FinetuneConfig("x", toy.CAPTIONS, iterations=1, batch=1, steps=1, renderings=("surface",))
    steps = setup_toy(config, MODEL_FILES, DistributedContext(), tmp_path)
    next(steps)
    with pytest.raises(StopIteration) as end:
        next(steps)
    recipe = end.value.value
    for name, setup in (("recipe", recipe), ("ablation", _both_renderings(recipe))):
        log = trainer(tmp_path / name, setup.settings, student=setup.student).step()
        assert ("geometry surface" in log) == (name == "ablation")
        assert "geometry volume" not in log


def test_figures_over_seeds() -> None:
    figures = (Figure("share", "share, %", 100, 1), Figure("error", "error", decimals=3))
    costs = {"parameters": 1_633_060, "iterations": 60, "seconds": 10.0, "cpu_seconds": 8.0, "diverged": ""}
    results = {
        "one-step": {
            0: {"figures": {"share": 0.5, "error": None}, **costs},
            1: {"figures": {"share": 0.25, "error": 0.125}, **costs, "seconds": 30.0},
        }
    }
    lines = markdown([TABLES[2]], results, figures, ("a sphere", {"share": 0.0}), ["note"]).splitlines()
    one, two, _, baseline = (line for line in lines if line.startswith(("| K", "| a sphere")))
    measured = "| K = 1 | 2 | 37.5 (25.0 to 50.0) | 0.125 | 1.63 | 60 | 20 (10 to 30) | 8 | 50.9 | 14.4 |"
    assert one == measured
    assert two == "| K = 2 | 0 | - | - | - | - | - | - | 62.6 | 22.4 |"
    assert baseline == "| a sphere | - | 0.0 | - | - | - | - | - | - | - |"
