"""Background fine-tuning of an engine: one run at a time, advanced while no generation job waits.

    training = TrainingService(root, found, device, wake)
    training.begin(config)
    training.state().iteration

`work` and `end` are called in the worker's thread, the only one that touches weights. All other methods are
thread-safe and return at once; their requests are carried out before the next iteration.
"""

from __future__ import annotations

import gc
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.run import FinetuneConfig, Report, Run, runs
from triplaneturbo.models.adapters import adapters
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.utils.devices import is_out_of_memory

DURATION_WINDOW = 10  # the remaining time is estimated from this many recent iterations
RESUMABLE = ("ready", "paused", "stopped", "failed")


@dataclass(frozen=True)
class RunState:
    """Immutable snapshot of a run's state.

    Attributes:
        config: the run's configuration.
        folder: the run's folder.
        state: "running", "pausing" or "ending" (evaluated and saved) while active; otherwise "ready",
            "paused", "stopped" (its server was killed), "failed" or "finished".
        sentence: the error of a failed run; "" otherwise.
        doing: the current activity other than training; "" while it trains.
        iteration: number of finished iterations.
        iterations: total number of iterations.
        seconds: recent duration of an iteration; 0 if unknown.
        left: estimated seconds until the end; 0 if unknown.
        log: for every iteration in order, its losses by name and its "iteration".
        previews: images of the preview prompts, in order.
        learning: whether the current state of its adapter can be used for generation.
        kept: whether its adapter is installed, which ends the run for good.
        sheet: image of meshes before and after training, if it exists.
        scores: scores before and after training, if they exist; see `Run.scores`.
    """

    config: FinetuneConfig
    folder: Path
    state: str
    sentence: str = ""
    doing: str = ""
    iteration: int = 0
    iterations: int = 0
    seconds: float = 0.0
    left: float = 0.0
    log: tuple[dict[str, Any], ...] = ()
    previews: tuple[Path, ...] = ()
    learning: bool = False
    kept: bool = False
    sheet: Path | None = None
    scores: dict[str, Any] | None = None

    @property
    def active(self) -> bool:
        """Whether the run is in progress."""
        return self.state in ("running", "pausing", "ending")

    @property
    def resumable(self) -> bool:
        """Whether the run can be resumed."""
        return self.state in RESUMABLE and not self.kept


class TrainingService:
    """Trains one run at a time in the background.

    Args:
        root: the folder of runs; the newest unfinished one is selected, but not started.
        found: the model's files.
        device: the device on which to train.
        wake: schedules a call of `work` in the worker's thread.
    """

    def __init__(self, root: Path, found: ModelFiles, device: torch.device, wake: Callable[[], None]) -> None:
        self._root = root
        self._found = found
        self._device = device
        self._wake = wake
        self._lock = threading.RLock()
        self._requested = ""  # the requested action: "learn", "pause", "keep", "discard" or ""
        self._training_steps: Generator[Report, None, None] | None = None  # used in the worker's thread only
        self._durations: deque[float] = deque(maxlen=DURATION_WINDOW)
        self._run: Run | None = None
        self._state: RunState | None = None
        available = [run for run in runs(root) if run.status["state"] != "running"]  # others have a process
        unfinished = [r for r in available if r.status["state"] in RESUMABLE and not _has_adapter(r)]
        if available:
            self._select((unfinished or available)[0])

    def state(self) -> RunState | None:
        """Return the state of the selected run; None if there is no run."""
        with self._lock:
            return self._state

    def begin(self, config: FinetuneConfig) -> None:
        """Start a run; the previously selected one stays on disk.

        Raises:
            UserError: the configuration is invalid, or another run is active.
        """
        with self._lock:
            self._require_idle()
            self._select(Run.begin(self._root / config.name, config))
            self._request("learn")

    def choose(self, name: str) -> None:
        """Select another run without resuming it.

        Raises:
            UserError: there is no run of that name, or a run is active.
        """
        with self._lock:
            self._require_idle()
            matching = [run for run in runs(self._root) if run.config.name == name]
            if not matching:
                raise UserError("This run no longer exists; choose another one.")
            self._select(matching[0])

    def names(self) -> list[str]:
        """Return the names of all runs on disk, newest first."""
        return [run.config.name for run in runs(self._root)]

    def pause(self) -> None:
        """Pause the run: save a checkpoint and free its memory."""
        with self._lock:
            if self._state is not None and self._state.state == "running":
                self._request("pause")

    def resume(self) -> None:
        """Resume the run.

        Raises:
            UserError: there is no resumable run.
        """
        with self._lock:
            if self._state is None or not (self._state.resumable or self._state.state == "pausing"):
                raise UserError("There is no run to resume; start one.")
            assert self._run is not None
            self._run.ending = False
            self._request("learn")

    def stop(self, keep: bool) -> None:
        """End the run for good.

        Args:
            keep: evaluate and install its adapter; otherwise delete the run.

        Raises:
            UserError: there is no run, or it has ended already.
        """
        with self._lock:
            if self._state is None or (keep and self._state.kept):
                raise UserError("There is no run to stop.")
            assert self._run is not None
            # Evaluate it first, unless that was done already or the run failed.
            self._run.ending = keep and self._state.state not in ("finished", "failed")
            self._request("keep" if keep else "discard")

    def adapter(self, name: str) -> Path | None:
        """Return the current adapter of the run of that name; None if it is installed or does not exist."""
        with self._lock:
            state, run = self._state, self._run
        if run is None or state is None or not state.learning or state.kept or state.config.name != name:
            return None
        return run.learned

    def work(self) -> bool:
        """Do one piece of the requested action; return whether there is more. Errors fail the run."""
        with self._lock:
            run, action = self._run, self._requested
        if run is None or not action:
            return False
        try:
            if action == "learn" or (action == "keep" and run.ending):
                return self._train_step(run)
            self._close_training()
            if action == "keep":
                self._keep(run)
            elif action == "discard":
                self._discard(run)
            else:
                self._reload_state(run)
        except Exception as error:
            self._close_training()
            self._reload_state(run, self._error_message(error))
        return False

    def end(self) -> None:
        """Save the run when the engine is closed."""
        with suppress(Exception):  # nobody sees the error, and the last checkpoint is on disk
            self._close_training()

    def _train_step(self, run: Run) -> bool:
        if self._training_steps is None:
            from triplaneturbo.finetune.runner import train

            self._training_steps = train(run, self._found, self._device)
        report = next(self._training_steps, None)
        if report is None:
            self._close_training()
            with self._lock:
                if self._requested not in ("learn", "keep"):  # another action was requested meanwhile
                    return True
            self._keep(run)
            return False
        if report.losses:
            self._durations.append(report.seconds)
        mean = sum(self._durations) / len(self._durations) if self._durations else 0.0
        with self._lock:
            state = self._state
            assert state is not None
            self._state = replace(
                state,
                iteration=report.iteration,
                doing=report.doing,
                seconds=mean,
                left=mean * (report.iterations - report.iteration),
                log=_append_losses(state.log, report),
                previews=state.previews if report.preview is None else tuple(run.previews()),
                learning=run.learned is not None,
            )
        return True

    def _keep(self, run: Run) -> None:
        with self._lock:
            assert self._state is not None
            self._state = replace(self._state, state="ending", doing="")
        run.keep()
        self._reload_state(run)

    def _discard(self, run: Run) -> None:
        run.discard()
        with self._lock:
            self._run = self._state = None
            self._requested = ""

    def _close_training(self) -> None:
        """Close the training loop, which saves the run, and free its memory."""
        steps, self._training_steps = self._training_steps, None
        if steps is None:
            return
        try:
            steps.close()
        finally:
            del steps
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _reload_state(self, run: Run, sentence: str = "") -> None:
        """Clear the requested action and read the state from disk; `sentence` marks the run as failed."""
        with self._lock:
            self._select(run)
            if sentence:
                assert self._state is not None
                self._state = replace(self._state, state="failed", sentence=sentence)

    def _select(self, run: Run) -> None:
        status = run.status
        self._requested = ""
        self._durations.clear()
        self._run = run
        self._state = RunState(
            run.config,
            run.folder,
            status["state"],
            status["sentence"],
            iteration=status["iteration"],
            iterations=status["iterations"],
            log=tuple(run.log()),
            previews=tuple(run.previews()),
            learning=run.learned is not None,
            kept=_has_adapter(run),
            sheet=run.sheet,
            scores=run.scores(),
        )

    def _request(self, action: str) -> None:
        assert self._state is not None
        self._requested = action
        state = {"learn": "running", "pause": "pausing"}.get(action, "ending")
        doing = "getting ready" if action == "learn" and not self._state.active else self._state.doing
        self._state = replace(self._state, state=state, sentence="", doing=doing)
        self._wake()

    def _require_idle(self) -> None:
        if self._state is not None and self._state.active:
            raise UserError(f"The run {self._state.config.name} is active; wait until it ends, or stop it.")

    def _error_message(self, error: Exception) -> str:
        if isinstance(error, UserError):
            return str(error)
        if is_out_of_memory(error):
            return (
                f"Out of memory on {self._device} during training; choose a smaller batch or close other"
                " programs, then resume."
            )
        traceback.print_exception(error)
        return f"Internal error ({type(error).__name__}); see the server's terminal for details."


def _append_losses(log: tuple[dict[str, Any], ...], report: Report) -> tuple[dict[str, Any], ...]:
    """Append a report's losses to a log; drop entries of later iterations, which precede a resume."""
    if not report.losses:
        return log
    if log and log[-1]["iteration"] >= report.iteration:
        log = tuple(entry for entry in log if entry["iteration"] < report.iteration)
    return (*log, {"iteration": report.iteration, **report.losses})


def _has_adapter(run: Run) -> bool:
    return run.config.name in adapters()
