"""The one run of fine-tuning that an engine has: learned piece by piece while nobody asks for a mesh.

    training = Training(root, found, device, wake)
    training.begin(order)
    training.state().iteration

`work` and `end` are for the line's thread, which alone touches weights; everything else may be called from
any thread and returns at once: what was asked for is done before the next piece of work.
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

REMEMBERED = 10  # iterations from whose seconds the rest is estimated
# What can be gone on with.
RESUMABLE = ("ready", "paused", "stopped", "failed")


@dataclass(frozen=True)
class RunState:
    """Where a run stands; nothing of it changes any more.

    Attributes:
        order: what was asked for.
        folder: where it lies.
        state: "running", "pausing", "ending" (its last pictures are drawn, it is put away), or, while nothing
            is done, "ready", "paused", "stopped" (its server was killed), "failed" or "finished".
        sentence: why it failed, "" if it did not.
        doing: what is being done beside iterations, "" while it learns.
        iteration: how many are done.
        iterations: of how many.
        seconds: of one iteration lately; 0 where that is not known.
        left: seconds until the end, an estimate; 0 where that is not known.
        log: the losses by part of every iteration, with its "iteration", in order.
        previews: pictures of the fixed prompts, in order.
        learning: whether its adapter as it is now can be generated with.
        kept: whether its adapter is in the library; nothing more can be done with the run then.
        sheet: the picture of before and after, if it has come to that.
        scores: before and after, likewise; as `Run.scores` has them.
    """

    order: FinetuneConfig
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
        """Whether something is being done."""
        return self.state in ("running", "pausing", "ending")

    @property
    def resumable(self) -> bool:
        """Whether it can be gone on with."""
        return self.state in RESUMABLE and not self.kept


class TrainingService:
    """The run that an engine has at a time.

    Args:
        root: the folder of runs; the newest one that is not over is taken up, but never begun by itself.
        found: the model's files.
        device: where it learns.
        wake: has `work` called soon, in the line's thread.
    """

    def __init__(self, root: Path, found: ModelFiles, device: torch.device, wake: Callable[[], None]) -> None:
        self._root = root
        self._found = found
        self._device = device
        self._wake = wake
        self._lock = threading.RLock()
        self._wanted = ""  # "learn", "pause", "keep", "discard", "" if nothing is
        self._steps: Generator[Report, None, None] | None = None  # the line's thread's own
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._run: Run | None = None
        self._state: RunState | None = None
        left = [run for run in runs(root) if run.status["state"] != "running"]  # not another process's
        begun = [run for run in left if run.status["state"] in RESUMABLE and not _is_kept(run)]
        if left:
            self._take_up((begun or left)[0])

    def state(self) -> RunState | None:
        """Where the run stands; None where there is none."""
        with self._lock:
            return self._state

    def begin(self, order: FinetuneConfig) -> None:
        """Begin a run; one that was not gone on with stays on disk.

        Raises:
            UserError: the order cannot be, or another run is under way.
        """
        with self._lock:
            self._refuse_two()
            self._take_up(Run.begin(self._root / order.name, order))
            self._want("learn")

    def choose(self, name: str) -> None:
        """Take up another run, without going on with it.

        Raises:
            UserError: there is none of that name, or a run is under way.
        """
        with self._lock:
            self._refuse_two()
            found = [run for run in runs(self._root) if run.order.name == name]
            if not found:
                raise UserError("That run is gone; choose another one.")
            self._take_up(found[0])

    def names(self) -> list[str]:
        """The names of all runs on disk, the newest first."""
        return [run.order.name for run in runs(self._root)]

    def pause(self) -> None:
        """Stop for now: a checkpoint is saved and the memory is given back."""
        with self._lock:
            if self._state is not None and self._state.state == "running":
                self._want("pause")

    def resume(self) -> None:
        """Go on.

        Raises:
            UserError: there is nothing to go on with.
        """
        with self._lock:
            if self._state is None or not (self._state.resumable or self._state.state == "pausing"):
                raise UserError("There is no run to go on with; begin one.")
            assert self._run is not None
            self._run.ending = False
            self._want("learn")

    def stop(self, keep: bool) -> None:
        """End the run for good.

        Args:
            keep: judge what it has learned and put it into the library; otherwise all of it is deleted.

        Raises:
            UserError: there is no run, or it is over.
        """
        with self._lock:
            if self._state is None or (keep and self._state.kept):
                raise UserError("There is no run to stop.")
            assert self._run is not None
            # It is judged first, unless that was done, or it could not go on.
            self._run.ending = keep and self._state.state not in ("finished", "failed")
            self._want("keep" if keep else "discard")

    def adapter(self, name: str) -> Path | None:
        """The adapter of the run of that name as it is now; None where the library has it, or nobody."""
        with self._lock:
            state, run = self._state, self._run
        if run is None or state is None or not state.learning or state.kept or state.order.name != name:
            return None
        return run.learned

    def work(self) -> bool:
        """Do one piece of what is wanted; whether there is more. An error becomes the run's sentence."""
        with self._lock:
            run, wanted = self._run, self._wanted
        if run is None or not wanted:
            return False
        try:
            if wanted == "learn" or (wanted == "keep" and run.ending):
                return self._learn(run)
            self._put_away()
            if wanted == "keep":
                self._keep(run)
            elif wanted == "discard":
                self._discard(run)
            else:
                self._settle(run)
        except Exception as error:
            self._put_away()
            self._settle(run, self._told(error))
        return False

    def end(self) -> None:
        """The engine is closed: save what was learned."""
        with suppress(Exception):  # nobody is left to be told; the last checkpoint is on disk
            self._put_away()

    def _learn(self, run: Run) -> bool:
        if self._steps is None:
            from triplaneturbo.finetune.runner import train

            self._steps = train(run, self._found, self._device)
        report = next(self._steps, None)
        if report is None:
            self._put_away()
            with self._lock:
                if self._wanted not in ("learn", "keep"):  # somebody has asked for something else meanwhile
                    return True
            self._keep(run)
            return False
        if report.losses:
            self._took.append(report.seconds)
        each = sum(self._took) / len(self._took) if self._took else 0.0
        with self._lock:
            state = self._state
            assert state is not None
            self._state = replace(
                state,
                iteration=report.iteration,
                doing=report.doing,
                seconds=each,
                left=each * (report.iterations - report.iteration),
                log=_logged(state.log, report),
                previews=state.previews if report.preview is None else tuple(run.previews()),
                learning=run.learned is not None,
            )
        return True

    def _keep(self, run: Run) -> None:
        with self._lock:
            assert self._state is not None
            self._state = replace(self._state, state="ending", doing="")
        run.keep()
        self._settle(run)

    def _discard(self, run: Run) -> None:
        run.discard()
        with self._lock:
            self._run = self._state = None
            self._wanted = ""

    def _put_away(self) -> None:
        """Close what is under way, which saves it, and give its memory back."""
        steps, self._steps = self._steps, None
        if steps is None:
            return
        try:
            steps.close()
        finally:
            del steps
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _settle(self, run: Run, sentence: str = "") -> None:
        """Nothing is wanted any more: the state is what is on disk."""
        with self._lock:
            self._take_up(run)
            if sentence:
                assert self._state is not None
                self._state = replace(self._state, state="failed", sentence=sentence)

    def _take_up(self, run: Run) -> None:
        status = run.status
        self._wanted = ""
        self._took.clear()
        self._run = run
        self._state = RunState(
            run.order,
            run.folder,
            status["state"],
            status["sentence"],
            iteration=status["iteration"],
            iterations=status["iterations"],
            log=tuple(run.log()),
            previews=tuple(run.previews()),
            learning=run.learned is not None,
            kept=_is_kept(run),
            sheet=run.sheet,
            scores=run.scores(),
        )

    def _want(self, wanted: str) -> None:
        assert self._state is not None
        self._wanted = wanted
        state = {"learn": "running", "pause": "pausing"}.get(wanted, "ending")
        doing = "getting ready" if wanted == "learn" and not self._state.active else self._state.doing
        self._state = replace(self._state, state=state, sentence="", doing=doing)
        self._wake()

    def _refuse_two(self) -> None:
        if self._state is not None and self._state.active:
            raise UserError(f"The run {self._state.order.name} is under way: wait for its end, or stop it.")

    def _told(self, error: Exception) -> str:
        if isinstance(error, UserError):
            return str(error)
        if is_out_of_memory(error):
            return (
                f"Out of memory on {self._device} while it learned: choose a smaller batch or close other"
                " programs, and go on."
            )
        traceback.print_exception(error)
        return f"Something is wrong in the program ({type(error).__name__}); the terminal has the details."


def _logged(log: tuple[dict[str, Any], ...], report: Report) -> tuple[dict[str, Any], ...]:
    """A log with a report's losses; what is later was logged before a checkpoint was gone back to."""
    if not report.losses:
        return log
    if log and log[-1]["iteration"] >= report.iteration:
        log = tuple(entry for entry in log if entry["iteration"] < report.iteration)
    return (*log, {"iteration": report.iteration, **report.losses})


def _is_kept(run: Run) -> bool:
    return run.order.name in adapters()
