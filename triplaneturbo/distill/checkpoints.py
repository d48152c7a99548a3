"""A run's checkpoints: the last three and the best, each whole or not there at all.

`checkpoints/00000050.pt` in a run's folder is its state after 50 iterations: what learns and its moving
average, the optimiser, the critics, the moving averages of the log, and the settings, which a run must have
again to be gone on with. Random numbers have no state: they follow from the seed and the iteration, as the
schedules' values and the place among the prompts do.

Which is the best? What teachers say of one iteration says more of its captions and timesteps than of the
student, so a checkpoint is judged by `smoothed`. No loss knows what looks best: the last one is what a run
ends with, and the best one is there to go back to.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.utils.training_state import BrokenState, check_settings, read_state, save_state

LAST = 3  # how many are kept beside the best
DECAY = 0.95  # of the log's moving averages: they look back some 20 iterations
SETTLED = 20  # iterations before which moving averages are no more than the first few


def smoothed_error(log: Mapping[str, float], teachers: Collection[str]) -> float:
    """What checkpoints are judged by, less being better: the mean of the teachers' errors, each averaged
    over some 20 iterations.

    Args:
        log: moving averages by part; those of a teacher are called by its name and a rendering's.
        teachers: their names.
    """
    errors = [value for part, value in log.items() if part.partition(" ")[0] in teachers]
    return sum(errors) / len(errors) if errors else math.inf


class Checkpoints:
    """Those of the run in one folder, which has no other.

    Args:
        folder: the run's.
        told: its settings, plain values by name.

    Attributes:
        best: iteration and loss of the best one; None: none is old enough to be judged.
    """

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        self.run, self.folder, self.told = folder, folder / "checkpoints", dict(told)
        self.best: tuple[int, float] | None = None

    def path(self, iteration: int) -> Path:
        """Where the state after that many iterations lies, or would."""
        return self.folder / f"{iteration:08}.pt"

    def iterations(self) -> list[int]:
        """Those of which there is a file, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.pt") if path.stem.isdigit())

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that is whole; None: the run has none yet. And what to tell of broken ones.

        Raises:
            UserError: it belongs to a run with other settings, or all are broken.
        """
        notes: list[str] = []
        found = self.iterations()
        for iteration in reversed(found):
            try:
                state = read_state(self.path(iteration))
            except BrokenState:
                notes.append(f"{self.path(iteration)} is broken: the run goes on from the one before.")
                continue
            self._check(state["settings"])
            best = state["best"]
            self.best = (best["iteration"], best["loss"]) if best else None
            return state, notes
        if found:
            raise UserError(f"All checkpoints in {self.folder} are broken: delete them to begin anew.")
        if (self.run / "train.pt").exists():
            notes.append(
                f"{self.run / 'train.pt'} is of an older version and left alone: the run begins anew."
            )
        return None, notes

    def _check(self, then: dict[str, Any]) -> None:
        now = dict(self.told)
        # The one change that a run that has lost its way asks for.
        if now.get("rate", math.inf) < then.get("rate", -math.inf):
            now["rate"] = then["rate"]
        check_settings(self.run, then, now)

    def save(self, iteration: int, state: dict[str, Any], loss: float) -> None:
        """Write a state; those that are kept no longer go when it is whole.

        Raises:
            UserError: it cannot be written; the others stay as they are.
        """
        best = self.best
        if iteration >= SETTLED and (best is None or loss < best[1] or not self.path(best[0]).exists()):
            best = iteration, loss
        told = {"iteration": best[0], "loss": best[1]} if best else None
        state = {**state, "settings": self.told, "iteration": iteration, "best": told}
        save_state(self.path(iteration), state)
        self.best = best
        known = self.iterations()
        kept = {*[other for other in known if other <= iteration][-LAST:], *(best[:1] if best else ())}
        for other in known:
            if other not in kept:  # those after this one are broken, or from a run that lost its way
                _remove(self.path(other))
        for part in self.folder.glob(".*.part"):  # what a killed process was writing
            _remove(part)

    def drop(self, iteration: int) -> None:
        """Forget a state that has proved to be no good; the run's first one always stays."""
        if iteration > min(self.iterations(), default=iteration):
            _remove(self.path(iteration))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it only takes space
        path.unlink()
