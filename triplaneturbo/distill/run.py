"""A fine-tuning run: a folder with what was asked, how far it is, and what came of it.

    order.json     what the user asked for
    run.json       where it stands
    log.jsonl      a line of losses an iteration
    previews/      pictures of the same prompts, by iteration
    train.pt       the trainer's state
    pool/          of a model of the world: the solids of its prompts, drawn
    learned.safetensors    the adapter as it was at the last checkpoint

This file imports nothing heavy, so that a page may list runs; `Run.train` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from triplaneturbo.distill.order import FILE, PRESETS, Order, check_name
from triplaneturbo.errors import UserError
from triplaneturbo.files import write_whole
from triplaneturbo.library import ADAPTERS, adapters
from triplaneturbo.library import FILE as ADAPTER_FILE
from triplaneturbo.models import ROOT, Found

if TYPE_CHECKING:
    import torch

    from triplaneturbo.parallel import Team

__all__ = ["PRESETS", "RUNS", "Order", "Report", "Run", "runs"]

RUNS = ROOT / "outputs" / "runs"
_LEARNED = "learned.safetensors"


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
    """

    def __init__(self, folder: Path, order: Order) -> None:
        self.folder = folder
        self.order = order

    @classmethod
    def begin(cls, folder: Path, order: Order) -> Run:
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
        run = cls(folder, order)
        run._tell("ready")
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder.

        Raises:
            UserError: there is none, or its order is broken.
        """
        return cls(folder, Order.load(folder))

    @property
    def status(self) -> dict[str, Any]:
        """Where it stands.

        "state": "ready" (nothing done yet), "running", "paused", "stopped" (its process was killed),
        "finished" or "failed"; "iteration" of "iterations"; "sentence": why it failed, else ""; "seconds"
        that it has taken; "left": seconds that it will still take, an estimate.
        """
        told = {"state": "ready", "iteration": 0, "iterations": self.order.iterations, "sentence": "",
                "seconds": 0.0, "left": 0.0}  # fmt: skip
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

    def previews(self) -> list[Path]:
        """The pictures that were drawn so far, in order."""
        return sorted((self.folder / "previews").glob("*.png"))

    def preview_prompts(self) -> tuple[str, ...]:
        """What the previews show."""
        order = self.order
        return order.preview_prompts or (order.held_out + order.prompts)[:8]

    def train(
        self, found: Found, device: torch.device, team: Team | None = None
    ) -> Generator[Report, None, None]:
        """Learn, or go on; each `next` does one piece of work, an iteration or less.

        Closing it saves a checkpoint, from which another call goes on.

        Raises:
            UserError: the run is under way in another process, a file is missing or broken, what is learned
                is not finite, or nothing can be written; what was learned is in the last checkpoint.
        """
        from triplaneturbo.distill import prd
        from triplaneturbo.distill.lesson import prepare
        from triplaneturbo.distill.looks import preview
        from triplaneturbo.generator.adapter import save_adapter
        from triplaneturbo.parallel import Team
        from triplaneturbo.world.train import averaged

        team = team or Team()
        total = self.order.iterations
        with self._held():
            before = self.status["seconds"]
            started = time.monotonic()
            done = int(self.status["iteration"])
            self._tell("running")
            try:
                work = prepare(self.order, found, device, self.folder)
                while True:
                    try:
                        yield Report(done, total, doing=next(work))
                    except StopIteration as end:
                        lesson = end.value
                        break
                news: list[tuple[int, dict[str, float]]] = []

                def progress(step: int, log: dict[str, float], average: dict[str, torch.Tensor]) -> None:
                    news.append((step, log))
                    with averaged(lesson.student.generator, average):
                        save_adapter(lesson.student.generator, self.folder / _LEARNED)

                finished = False
                while not finished:
                    since = time.monotonic()
                    finished = prd.train(
                        team, lesson.student, lesson.teachers, lesson.draw, lesson.settings, self.folder,
                        autocast=lesson.autocast, progress=progress, until=time.monotonic() - 1,
                    )  # fmt: skip
                    done, losses = news.pop()
                    seconds = time.monotonic() - since
                    self._log({"iteration": done, **losses})
                    picture = None
                    every = self.order.preview_every
                    if every and (done % every == 0 or finished):
                        picture = write_whole(
                            self.folder / "previews" / f"{done:07}.png",
                            preview(lesson, self.preview_prompts()),
                        )
                    left = (total - done) * seconds
                    self._tell("running", done, seconds=before + time.monotonic() - started, left=left)
                    yield Report(done, total, losses, seconds, left, preview=picture)
            except UserError as error:
                self._tell("failed", done, str(error), before + time.monotonic() - started)
                raise
            except GeneratorExit:
                self._tell("paused", done, seconds=before + time.monotonic() - started)
                raise
            self._tell("finished", done, seconds=before + time.monotonic() - started)

    def keep(self, library: Path = ADAPTERS) -> Path:
        """Put what was learned so far into the library, under the run's name; returns the adapter's file.

        Raises:
            UserError: nothing was learned yet, the name was taken meanwhile, or it cannot be written.
        """
        learned = self.folder / _LEARNED
        if not learned.is_file():
            raise UserError(f"The run {self.order.name} has learned nothing yet: let it go on.")
        if self.order.name in adapters(library):
            raise UserError(
                f"There is an adapter {self.order.name} already: remove it or begin a run of another name."
            )
        return write_whole(library / self.order.name / ADAPTER_FILE, learned.read_bytes())

    def discard(self) -> None:
        """Remove the run's folder; what is in the library stays.

        Raises:
            UserError: the run is under way, or its folder cannot be removed.
        """
        with self._held():
            pass
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise UserError(f"Cannot remove {self.folder}: {error.strerror}; remove it by hand.") from None

    def _tell(self, state: str, iteration: int | None = None, sentence: str = "", seconds: float = 0.0,
              left: float = 0.0) -> None:  # fmt: skip
        told = {
            "state": state,
            "iteration": self.status["iteration"] if iteration is None else iteration,
            "iterations": self.order.iterations,
            "sentence": sentence,
            "seconds": round(seconds or self.status["seconds"], 2),
            "left": round(left, 1),
        }
        write_whole(self.folder / "run.json", (json.dumps(told) + "\n").encode())

    def _log(self, entry: dict[str, Any]) -> None:
        rounded = {
            key: round(value, 6) if isinstance(value, float) else value for key, value in entry.items()
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", blocking=False)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
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
