"""A fine-tuning run: a folder with what was asked, how far it is, and what came of it.

    order.json             what the user asked for
    run.json               where it stands
    log.jsonl              a line of losses an iteration
    previews/              pictures of the same prompts, by iteration
    checkpoints/           the trainer's states
    learned.safetensors    the adapter, averaged, as it was at the last checkpoint
    before.*, after.*      what the judged prompts were before and after; sheet.png and scores.json of both
    pool/, corpus/         the solids of the world's prompts, drawn; a corpus, cleaned

This file imports nothing heavy, so that a page may list runs; `Run.train` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FILE, PRESETS, FinetuneConfig, check_name
from triplaneturbo.finetune.duration import SHOWN
from triplaneturbo.models.adapters import ADAPTERS, adapters
from triplaneturbo.models.adapters import FILE as ADAPTER_FILE
from triplaneturbo.models.catalog import RUNS
from triplaneturbo.utils.atomic_files import write_whole

if TYPE_CHECKING:
    pass

__all__ = ["PRESETS", "RUNS", "FinetuneConfig", "Report", "Run", "runs"]

LEARNED = "learned.safetensors"
SHEET = "sheet.png"
SCORES = "scores.json"


@dataclass(frozen=True)
class Report:
    """What a piece of a run's work came to: an iteration, or a part of what goes before and after them.

    Attributes:
        iteration: how many are done.
        iterations: of how many.
        losses: by part, of the iteration that was just done; {} where the piece was none.
        seconds: that it took.
        left: seconds that are still to go, an estimate; 0 where nothing is known yet.
        doing: what is being done beside iterations, such as "drawing the world's duck"; "" while it learns.
        preview: a new picture of the fixed prompts, if one was drawn now.
    """

    iteration: int
    iterations: int
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    left: float = 0.0
    doing: str = ""
    preview: Path | None = None


class Run:
    """A run in its folder; made by `Run.begin` and `Run.open`.

    Attributes:
        folder: where it lies.
        order: what was asked for.
        ending: may be set from any thread: no other iteration is begun, what was learned is judged, and the
            run is finished.
    """

    def __init__(self, folder: Path, order: FinetuneConfig) -> None:
        self.folder = folder
        self.order = order
        self.ending = False

    @classmethod
    def begin(cls, folder: Path, order: FinetuneConfig) -> Run:
        """A new run in a folder that has none.

        Raises:
            UserError: the order cannot be, there is a run in the folder, or it cannot be written.
        """
        order.check()
        if (folder / FILE).exists():
            raise UserError(
                f"There is a run {order.name} already: go on with it (--resume), discard it, or choose"
                " another name."
            )
        order.save(folder)
        return cls(folder, order)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            UserError: there is none, or its order is broken.
        """
        return cls(folder, FinetuneConfig.load(folder))

    @property
    def status(self) -> dict[str, Any]:
        """Where it stands.

        "state": "ready" (nothing done yet), "running", "paused", "stopped" (its process was killed),
        "finished" or "failed"; "iteration" of "iterations"; "sentence": why it failed, else ""; "seconds"
        that it has taken; "left": seconds that it will still take, an estimate.
        """
        told = {
            "state": "ready",
            "iteration": 0,
            "iterations": self.order.iterations,
            "sentence": "",
            "seconds": 0.0,
            "left": 0.0,
            "doing": "",
        }
        with contextlib.suppress(OSError, ValueError):
            told |= json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        if told["state"] == "running" and not self._is_held():
            told["state"] = "stopped"
        return told

    def log(self) -> list[dict[str, Any]]:
        """The losses by part of every iteration that was logged, with its "iteration", in order."""
        lines: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(OSError), (self.folder / "log.jsonl").open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # the last one, where the process was killed
                    entry = json.loads(line)
                    lines[entry["iteration"]] = entry  # gone on with from a checkpoint: the newest counts
        return [lines[number] for number in sorted(lines)]

    def rewind(self, iteration: int) -> None:
        """Forget what was logged and drawn after an iteration, that of a checkpoint which is gone back to.

        Raises:
            UserError: the log cannot be written.
        """
        log = self.log()
        if log and log[-1]["iteration"] > iteration:
            lines = [json.dumps(entry) + "\n" for entry in log if entry["iteration"] <= iteration]
            write_whole(self.folder / "log.jsonl", "".join(lines).encode())
        for path in self.previews():
            if path > self.preview_at(iteration):
                path.unlink(missing_ok=True)

    def preview_at(self, iteration: int) -> Path:
        """Where the picture is or would be that is drawn after so many iterations."""
        return self.folder / "previews" / f"{iteration:07}.png"

    def previews(self) -> list[Path]:
        """The pictures that were drawn so far, in order."""
        return sorted((self.folder / "previews").glob("*.png"))

    def preview_prompts(self) -> tuple[str, ...]:
        """What the previews and the sheet show: held-out prompts first."""
        order = self.order
        return order.preview_prompts or (order.held_out[:SHOWN] + order.prompts[:SHOWN])[:SHOWN]

    def scores(self) -> dict[str, Any] | None:
        """What judging.py found before and after; None: the run has not come to that."""
        try:
            return json.loads((self.folder / SCORES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def learned(self) -> Path | None:
        """The adapter as it was learned so far, the averaged one; None where nothing was learned yet."""
        path = self.folder / LEARNED
        return path if path.is_file() else None

    @property
    def sheet(self) -> Path | None:
        """The picture of before and after; None where the run has not come to that."""
        path = self.folder / SHEET
        return path if path.is_file() else None

    def change(self, rate: float | None = None, memory: float | None = None) -> None:
        """Have the run go on with a lower learning rate, or another memory; None: the one that it has.

        Raises:
            UserError: the rate is higher than before, either cannot be, or the run is under way.
        """
        order = replace(
            self.order,
            rate=self.order.rate if rate is None else rate,
            memory=self.order.memory if memory is None else memory,
        )
        order.check_values()
        if order.rate > self.order.rate:
            raise UserError(
                f"A run can go on with a lower rate than its {self.order.rate:g}, not with {order.rate:g}:"
                " begin another run for a higher one."
            )
        if order != self.order:
            with self.held():
                order.save(self.folder)
            self.order = order

    def keep(self, library: Path = ADAPTERS) -> Path:
        """Put what was learned so far into the library, under the run's name; returns the adapter's file.

        Beside it lie the order, and, of a run that was finished, sheet.png and scores.json.

        Raises:
            UserError: nothing was learned yet, the name was taken meanwhile, or it cannot be written.
        """
        name, place = self.order.name, library / self.order.name
        if not (self.folder / LEARNED).is_file():
            raise UserError(f"The run {name} has learned nothing yet: let it go on.")
        if name in adapters(library) and not self._is_own(place):
            raise UserError(f"There is an adapter {name} already: remove it or begin a run of another name.")
        for file in (FILE, SHEET, SCORES):
            if (self.folder / file).is_file():
                write_whole(place / file, (self.folder / file).read_bytes())
        return write_whole(place / ADAPTER_FILE, (self.folder / LEARNED).read_bytes())

    def _is_own(self, place: Path) -> bool:
        """Whether the adapter in a place is what this run has left there before."""
        try:
            # A run may have gone on with another rate or memory; see `change`.
            other = replace(FinetuneConfig.load(place), rate=self.order.rate, memory=self.order.memory)
            return asdict(other) == asdict(self.order)
        except UserError:
            return False

    def discard(self) -> None:
        """Remove the run's folder; what is in the library stays.

        Raises:
            UserError: the run is under way, or its folder cannot be removed.
        """
        with self.held():
            pass
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise UserError(f"Cannot remove {self.folder}: {error.strerror}; remove it by hand.") from None

    def tell(self, state: str, at: Report, seconds: float, sentence: str = "") -> None:
        told = {
            "state": state,
            "iteration": at.iteration,
            "iterations": self.order.iterations,
            "sentence": sentence,
            "seconds": round(seconds, 2),
            "left": round(at.left, 1),
            "doing": at.doing,
        }
        write_whole(self.folder / "run.json", (json.dumps(told) + "\n").encode())

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", blocking=False)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        try:
            with self._lock():
                yield
        except Timeout:
            raise UserError(
                f"The run {self.order.name} is under way in another process: wait for it, or stop it."
            ) from None

    def _is_held(self) -> bool:
        try:
            with self._lock():
                return False
        except Timeout:
            return True
        except OSError:
            return False


def runs(root: Path = RUNS) -> list[Run]:
    """The runs in a folder, the newest first; what is no run, or a broken one, is left out."""
    found = []
    for place in sorted(root.iterdir()) if root.is_dir() else []:
        with contextlib.suppress(UserError):
            check_name(place.name)
            found.append(Run.open(place))
    return sorted(found, key=lambda run: os.path.getmtime(run.folder / FILE), reverse=True)
