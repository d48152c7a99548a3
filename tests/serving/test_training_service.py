"""Background fine-tuning of an engine, with a fake training loop that the tests control."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.pace import patience, until
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import run as run_module
from triplaneturbo.finetune import runner
from triplaneturbo.finetune.run import LEARNED, FinetuneConfig, Report, Run
from triplaneturbo.models import adapters
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.request import Request
from triplaneturbo.serving import training_service as training_module
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.training_service import RunState

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


class Lesson:
    """Fake training loop: does an iteration each time one is allowed, and records its thread.

    Attributes:
        broken: raised instead of the next iteration.
    """

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.begun = threading.Event()
        self.log: list[str] = []
        self.broken: Exception | None = None

    def work(self, run: Run, found: Any, team: Any) -> Generator[Report, None, None]:
        done, total = int(run.status["iteration"]), run.config.iterations
        try:
            yield Report(done, total, doing="getting ready")
            while done < total and not run.ending:
                self.begun.set()
                assert self.allowed.acquire(timeout=patience(60))
                if self.broken is not None:
                    raise self.broken
                done += 1
                self.log.append(f"{done}, {threading.current_thread().name}")
                shutil.copyfile(SMALL / "adapter.safetensors", run.folder / LEARNED)
                yield Report(done, total, {"sd volume": 1 / done}, 0.5)
        except GeneratorExit:
            self.log.append("saved")
            raise
        if run.ending:
            self.log.append("judged")


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Lesson:
    setup = Lesson()
    monkeypatch.setattr(runner, "run_steps", setup.work)
    return setup


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A separate folder of adapters."""
    folder = tmp_path / "adapters"
    for module, names in ((adapters, ("adapters", "adapter")), (training_module, ("adapters",))):
        for name in names:
            monkeypatch.setattr(getattr(module, name), "__defaults__", (folder,))
    monkeypatch.setattr(run_module, "ADAPTERS", folder)
    monkeypatch.setattr(Run.keep, "__defaults__", (folder,))
    monkeypatch.setattr(FinetuneConfig.check, "__defaults__", (folder,))
    return folder


@pytest.fixture
def engine(setup: Lesson, shelf: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine("small", device="cpu", runs=tmp_path / "runs") as engine:
        yield engine
        for _ in range(20):
            setup.allowed.release()


def config(name: str = "ducks", iterations: int = 3) -> FinetuneConfig:
    return FinetuneConfig(name, ("a red duck",), iterations=iterations)


def state_when(engine: Engine, holds: Callable[[RunState], bool]) -> RunState:
    """Wait for a state of the run and return it."""

    def state() -> RunState | None:
        now = engine.run_state()
        assert now is not None
        return now if holds(now) else None

    found = until(state)
    assert found is not None
    return found


def test_jobs_run_between_iterations(engine: Engine, setup: Lesson, shelf: Path) -> None:
    assert engine.run_state() is None
    engine.begin_run(config())
    state = state_when(engine, lambda state: state.doing == "getting ready")
    assert (state.state, state.iteration, state.iterations, state.active) == ("running", 0, 3, True)
    assert setup.begun.wait(patience(60))
    job = engine.submit(Request("a cup", **QUICK))  # while the first iteration is under way
    setup.allowed.release()
    assert len(job.result(patience(60)).mesh.faces) > 0
    assert len(setup.log) == 1
    assert engine.learning() == "ducks"
    setup.allowed.release(2)
    state = state_when(engine, lambda state: not state.active)
    assert (state.state, state.kept, state.seconds) == ("finished", True, 0.0)
    assert [entry["iteration"] for entry in engine.run_state().log] in ([1, 2, 3], [])  # type: ignore[union-attr]
    assert [entry.split(", ")[1] for entry in setup.log] == ["engine on cpu 0"] * 3
    assert adapters.adapters() == {"ducks": shelf / "ducks" / "adapter.safetensors"}
    assert engine.adapters() == ["ducks"]
    assert engine.learning() == ""


def test_adapter_in_training_can_be_used(engine: Engine, setup: Lesson) -> None:
    engine.begin_run(config())
    with pytest.raises(UserError, match="There is no adapter 'ducks'"):
        engine.submit(Request("a cup", adapter="ducks", **QUICK))
    setup.allowed.release()
    state_when(engine, lambda state: state.learning)
    job = engine.submit(Request("a cup", adapter="ducks", **QUICK))
    setup.allowed.release()
    learned = job.result(patience(60))
    job = engine.submit(Request("a cup", **QUICK))
    setup.allowed.release()
    own = job.result(patience(60))
    assert torch.equal(learned.mesh.vertices, own.mesh.vertices)  # it is the model's own here
    assert not own.cached


def test_pause_and_resume(engine: Engine, setup: Lesson, tmp_path: Path) -> None:
    engine.begin_run(config())
    setup.allowed.release()
    state_when(engine, lambda state: state.iteration == 1)
    engine.pause_run()
    setup.allowed.release()  # the one that is under way ends first
    state = state_when(engine, lambda state: state.state == "paused")
    assert (state.iteration, state.resumable, state.active) == (2, True, False)
    assert setup.log[-1] == "saved"
    assert json.loads((tmp_path / "runs" / "ducks" / "run.json").read_text())["state"] == "paused"
    engine.resume_run()
    setup.allowed.release()
    assert state_when(engine, lambda state: not state.active).state == "finished"
    assert [entry[0] for entry in setup.log] == ["1", "2", "s", "3"]
    with pytest.raises(UserError, match="no run to resume"):
        engine.resume_run()


@pytest.mark.parametrize("keep", [True, False])
def test_stop_keeps_or_discards_a_run(
    engine: Engine, setup: Lesson, shelf: Path, tmp_path: Path, keep: bool
) -> None:
    with pytest.raises(UserError, match="no run to stop"):
        engine.stop_run(keep)
    engine.begin_run(config())
    setup.allowed.release(2)
    state_when(engine, lambda state: state.iteration == 2)
    engine.stop_run(keep)
    setup.allowed.release()
    until(lambda: not (state := engine.run_state()) or not state.active)
    state = engine.run_state()
    assert (shelf / "ducks").exists() == keep == (tmp_path / "runs" / "ducks").exists()
    assert (state is not None and state.kept) == keep
    assert ("judged" in setup.log, "saved" in setup.log) == (keep, not keep)
    if keep:
        assert state is not None
        assert not state.resumable


def test_second_or_invalid_runs_are_refused(engine: Engine, setup: Lesson) -> None:
    with pytest.raises(UserError, match="cannot express these prompts: 'a dragon'"):
        engine.begin_run(FinetuneConfig("ducks", ("a red duck", "a dragon")))
    with pytest.raises(UserError, match=r"name '\.\./x' is invalid"):
        engine.begin_run(config("../x"))
    assert engine.run_state() is None
    engine.begin_run(config())
    with pytest.raises(UserError, match="The run ducks is active"):
        engine.begin_run(config("cups"))
    with pytest.raises(UserError, match="is active"):
        engine.choose_run("ducks")
    assert setup.begun.wait(patience(60))
    engine.pause_run()
    setup.allowed.release()
    state_when(engine, lambda state: state.state == "paused")
    with pytest.raises(UserError, match="A run named ducks already exists"):
        engine.begin_run(config())
    engine.begin_run(config("cups", 1))
    setup.allowed.release()
    state_when(engine, lambda state: state.config.name == "cups" and not state.active)
    assert set(engine.run_names()) == {"ducks", "cups"}
    engine.choose_run("ducks")
    assert engine.run_state().state == "paused"  # type: ignore[union-attr]
    with pytest.raises(UserError, match="This run no longer exists"):
        engine.choose_run("hats")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("The loss is not finite: lower the rate."), "The loss is not finite: lower the rate."),
        (MemoryError(), "Out of memory on cpu during training"),
        (ZeroDivisionError("bug"), r"Internal error \(ZeroDivisionError\)"),
    ],
    ids=["user", "memory", "bug"],
)
def test_failed_run_does_not_stop_the_engine(
    engine: Engine, setup: Lesson, error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup.broken = error
    engine.begin_run(config())
    setup.allowed.release()
    state = state_when(engine, lambda state: not state.active)
    assert state.state == "failed"
    assert re.match(said, state.sentence)
    assert len(engine.generate("a cup", **QUICK).mesh.faces) > 0
    setup.broken = None
    engine.resume_run()
    setup.allowed.release(3)
    assert state_when(engine, lambda state: not state.active).state == "finished"
    assert ("ZeroDivisionError" in capsys.readouterr().err) == isinstance(error, ZeroDivisionError)


def test_closed_engine_saves_the_run_for_another(setup: Lesson, shelf: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Engine("small", device="cpu", runs=runs) as engine:
        engine.begin_run(config())
        setup.allowed.release()
        state_when(engine, lambda state: state.iteration == 1)
        setup.allowed.release()
    assert setup.log[-1] == "saved"
    done = len(setup.log) - 1
    status = json.loads((runs / "ducks" / "run.json").read_text())
    (runs / "ducks" / "run.json").write_text(
        json.dumps({**status, "state": "running"})
    )  # as if it was killed
    with Engine("small", device="cpu", runs=runs) as engine:
        state = engine.run_state()
        assert state is not None
        assert (state.state, state.iteration, state.resumable) == ("stopped", done, True)
        time.sleep(0.2)
        assert len(setup.log) == done + 1  # nothing is begun by itself
        engine.resume_run()
        setup.allowed.release(3)
        assert state_when(engine, lambda state: not state.active).kept
    with Engine("small", device="cpu", runs=runs) as engine:
        state = engine.run_state()
        assert state is not None
        assert (state.state, state.kept, state.resumable) == ("finished", True, False)
