"""Checkpoints of a run: the last three and the best one, written atomically.

`checkpoints/00000050.pt` in the run's folder is the state after 50 iterations: trained weights and their
moving average, optimizer, critics, moving averages of the log, and the settings that must match on resume.
There is no random state: random numbers, schedules and the position among the prompts follow from the seed
and the iteration.

The best checkpoint is the one with the lowest `smoothed_error`, since the loss of a single iteration depends
more on its captions and timesteps than on the student. No loss measures looks: a run ends with its last
checkpoint, and the best one is kept as a fallback.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from triplaneturbo.distill.renamed_settings import with_current_names
from triplaneturbo.distill.settings import is_default
from triplaneturbo.errors import UserError
from triplaneturbo.utils.training_state import BrokenState, check_settings, read_state, save_state

LAST = 3  # checkpoints kept in addition to the best
DECAY = 0.95  # decay of the log's moving averages: a window of about 20 iterations
SETTLED = 20  # iterations before moving averages are meaningful


def smoothed_error(log: Mapping[str, float], teachers: Collection[str]) -> float:
    """Return the mean of the teachers' moving-average errors; lower is better, inf if there are none.

    Args:
        log: moving averages by part; a teacher's parts are named "<teacher> <rendering>".
        teachers: names of the teachers.
    """
    errors = [value for part, value in log.items() if part.partition(" ")[0] in teachers]
    return sum(errors) / len(errors) if errors else math.inf


class Checkpoints:
    """The checkpoints in a run's folder.

    Args:
        folder: folder of the run.
        settings: settings that must match on resume, plain values by name.

    Attributes:
        best: iteration and loss of the best checkpoint; None if no checkpoint is old enough.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.run_folder, self.folder, self.settings = folder, folder / "checkpoints", dict(settings)
        self.best: tuple[int, float] | None = None

    def path(self, iteration: int) -> Path:
        """Return the path of the checkpoint of an iteration."""
        return self.folder / f"{iteration:08}.pt"

    def iterations(self) -> list[int]:
        """Return the iterations that have a checkpoint file, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdigit())

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Load the newest intact checkpoint.

        Returns:
            Its state (None for a new run), and messages about broken checkpoints.

        Raises:
            UserError: if it belongs to a run with other settings, or all checkpoints are broken.
        """
        notes: list[str] = []
        iterations = self.iterations()
        for iteration in reversed(iterations):
            try:
                state = read_state(self.path(iteration))
            except BrokenState:
                notes.append(
                    f"{self.path(iteration)} is broken: the run resumes from the previous checkpoint."
                )
                continue
            self._check(state["settings"])
            best = state["best"]
            self.best = (best["iteration"], best["loss"]) if best else None
            return state, notes
        if iterations:
            raise UserError(f"All checkpoints in {self.folder} are broken: delete them to start again.")
        if (self.run_folder / "train.pt").exists():
            notes.append(f"{self.run_folder / 'train.pt'} is from an older version and is ignored.")
        return None, notes

    def _check(self, then: dict[str, Any]) -> None:
        now = dict(self.settings)
        then = with_current_names(then)
        # Settings that a newer version added.
        then = {key: now[key] for key in now.keys() - then.keys() if is_default(key, now[key])} | then
        # The only change allowed: the remedy for a run that diverged.
        if now.get("learning_rate", math.inf) < then.get("learning_rate", -math.inf):
            now["learning_rate"] = then["learning_rate"]
        check_settings(self.run_folder, then, now)

    def save(self, iteration: int, state: dict[str, Any], loss: float) -> None:
        """Write a checkpoint, then delete those that are no longer kept.

        Raises:
            UserError: if it cannot be written; existing checkpoints are unchanged.
        """
        best = self.best
        if iteration >= SETTLED and (best is None or loss < best[1] or not self.path(best[0]).exists()):
            best = iteration, loss
        best_entry = {"iteration": best[0], "loss": best[1]} if best else None
        state = {**state, "settings": self.settings, "iteration": iteration, "best": best_entry}
        save_state(self.path(iteration), state)
        self.best = best
        existing = self.iterations()
        kept = {*[other for other in existing if other <= iteration][-LAST:], *(best[:1] if best else ())}
        for other in existing:
            if other not in kept:  # later ones are broken, or from before a divergence
                _remove(self.path(other))
        for part in self.folder.glob(".*.part"):  # left behind by a killed process
            _remove(part)

    def drop(self, iteration: int) -> None:
        """Delete a checkpoint that led to non-finite values, unless it is the first of the run."""
        if iteration > min(self.iterations(), default=iteration):
            _remove(self.path(iteration))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a leftover file only takes space
        path.unlink()
