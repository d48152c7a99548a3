"""Ablations: trained, scored, resumed after any kill, shared by processes, tabulated."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from tests.helpers import toy
from tests.helpers.ablations import BUDGET, die_at_write, setup_toy, small_ablation
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
from triplaneturbo.utils.distributed import DistributedContext

__all__ = ["one_thread"]
TABLE_2 = ("one-step", "proposed", "two-steps")


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train toys."""
    monkeypatch.setattr(ablation_training, "prepare", setup_toy)


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


def test_finished_runs_are_kept_and_more_seeds_are_added(tmp_path: Path) -> None:
    small_ablation(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    text, scorer = small_ablation(tmp_path, seeds=(0, 1))
    assert sorted(scorer.scored) == [f"{name}-1" for name in TABLE_2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert " to " in text.split("K = 4")[1].split("|")[2]  # lowest and highest of the seeds
    made = adapters(tmp_path)
    assert made["proposed-0"] != made["proposed-1"]


# The first writes: ablation.json, two checkpoints, a cost, the adapter of the first run, two records.
@pytest.mark.slow
@pytest.mark.parametrize("write", [3, 6])
def test_a_killed_ablation_resumes(tmp_path: Path, write: int) -> None:
    small_ablation(tmp_path / "whole")
    process = forked(die_at_write, tmp_path / "killed", write)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "table.md").exists()
    _, scorer = small_ablation(tmp_path / "killed")
    assert adapters(tmp_path / "killed") == adapters(tmp_path / "whole")
    assert sorted(scorer.scored)[-1] == "two-steps-0"


def test_an_interrupted_run_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ablation(tmp_path / "whole")
    real, steps = ablation_training.Trainer.step, iter(range(10))

    def step(self: ablation_training.Trainer) -> dict[str, float]:
        if next(steps) == 1:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(ablation_training.Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        small_ablation(tmp_path / "stopped")
    cost = json.loads((tmp_path / "stopped" / "runs" / "proposed-0" / "cost.json").read_text())
    assert cost["iteration"] == 1
    small_ablation(tmp_path / "stopped")
    assert next(steps) == 2 + 1 + 4  # two in the first attempt, the second iteration, and two runs
    assert adapters(tmp_path / "stopped") == adapters(tmp_path / "whole")
    result = json.loads((tmp_path / "stopped" / "runs" / "proposed-0" / "training.json").read_text())
    assert result["seconds"] > cost["seconds"]


def test_a_run_of_another_process_is_skipped(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "proposed-0"
    place.mkdir(parents=True)
    with FileLock(place / "lock"):
        text, scorer = small_ablation(tmp_path)
        assert sorted(scorer.scored) == ["one-step-0", "two-steps-0"]
        assert "Unfinished: proposed-0." in text
    text, scorer = small_ablation(tmp_path)
    assert scorer.scored == ["proposed-0"]
    assert "Unfinished" not in text


@pytest.mark.parametrize(("budget", "what"), [({"iterations": 3}, "budget"), ({"equal": "passes"}, "budget")])
def test_another_ablation_in_the_folder(tmp_path: Path, budget: dict, what: str) -> None:
    small_ablation(tmp_path)
    with pytest.raises(UserError, match=f"holds an ablation with another {what}; use another --to"):
        small_ablation(tmp_path, budget=replace(BUDGET, **budget))


def test_a_broken_record(tmp_path: Path) -> None:
    small_ablation(tmp_path)
    (tmp_path / "runs" / "proposed-0" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"Cannot read .*result\.json .*delete it"):
        small_ablation(tmp_path)


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
