"""Run: the folder of a fine-tuning run, with its options, status and results.

    order.json             the options (FinetuneConfig)
    run.json               the status
    log.jsonl              losses, one line per iteration
    previews/              images of fixed prompts, by iteration
    checkpoints/           states of the trainer
    learned.safetensors    the averaged adapter of the last checkpoint
    before.*, after.*      evaluation before and after training; sheet.png and scores.json combine both
    pool/, corpus/         rendered views of the toy world's prompts; a cleaned corpus

Imports nothing heavy, so that a page can list runs; training is in runner.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FILE, FinetuneConfig, check_name
from triplaneturbo.finetune.duration import SHOWN
from triplaneturbo.models.adapters import ADAPTERS, adapters
from triplaneturbo.models.adapters import FILE as ADAPTER_FILE
from triplaneturbo.models.catalog import RUNS
from triplaneturbo.utils.atomic_files import write_atomically

__all__ = ["RUNS", "FinetuneConfig", "Report", "Run", "runs"]

LEARNED = "learned.safetensors"
SHEET = "sheet.png"
SCORES = "scores.json"


@dataclass(frozen=True)
class Report:
    """Progress of a run: one iteration, or one unit of work before or after training.

    Attributes:
        iteration: iterations done.
        iterations: total number of iterations.
        losses: losses by part of the iteration just done; {} for other work.
        seconds: duration of this unit of work.
        left: estimated remaining seconds; 0 if unknown.
        doing: description of work other than iterations, such as "loading the model"; "" for iterations.
        preview: a new preview image, if one was rendered.
    """

    iteration: int
    iterations: int
    losses: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    left: float = 0.0
    doing: str = ""
    preview: Path | None = None


class Run:
    """A run in its folder; create it with `Run.begin` or `Run.open`.

    Attributes:
        folder: folder of the run.
        config: options of the run.
        ending: set to True (from any thread) to end training early; the run is then evaluated and finished.
    """

    def __init__(self, folder: Path, config: FinetuneConfig) -> None:
        self.folder = folder
        self.config = config
        self.ending = False

    @classmethod
    def begin(cls, folder: Path, config: FinetuneConfig) -> Run:
        """Create a run in a folder.

        Raises:
            UserError: if the configuration is invalid, the folder already has a run, or it cannot be written.
        """
        config.check()
        if (folder / FILE).exists():
            raise UserError(
                f"A run named {config.name} already exists: resume it (--resume), discard it, or choose"
                " another name."
            )
        config.save(folder)
        return cls(folder, config)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open the run in a folder.

        Raises:
            UserError: if there is none, or its configuration is broken.
        """
        return cls(folder, FinetuneConfig.load(folder))

    @property
    def status(self) -> dict[str, Any]:
        """Current status.

        "state" is "ready" (not started), "running", "paused", "stopped" (process killed), "finished" or
        "failed". "iteration" and "iterations" are counts, "sentence" is the error of a failed run, "seconds"
        the time spent, "left" the estimated remaining seconds and "doing" the current work besides
        iterations.
        """
        status = {
            "state": "ready",
            "iteration": 0,
            "iterations": self.config.iterations,
            "sentence": "",
            "seconds": 0.0,
            "left": 0.0,
            "doing": "",
        }
        with contextlib.suppress(OSError, ValueError):
            status |= json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        if status["state"] == "running" and not self._is_locked():
            status["state"] = "stopped"
        return status

    def log(self) -> list[dict[str, Any]]:
        """Return the logged losses by part, one dictionary per "iteration", in order."""
        lines: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(OSError), (self.folder / "log.jsonl").open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # an incomplete last line of a killed process
                    entry = json.loads(line)
                    lines[entry["iteration"]] = entry  # repeated after a resume: the newest counts
        return [lines[number] for number in sorted(lines)]

    def rewind(self, iteration: int) -> None:
        """Remove log entries and previews after an iteration, to which training returned.

        Raises:
            UserError: if the log cannot be written.
        """
        log = self.log()
        if log and log[-1]["iteration"] > iteration:
            lines = [json.dumps(entry) + "\n" for entry in log if entry["iteration"] <= iteration]
            write_atomically(self.folder / "log.jsonl", "".join(lines).encode())
        for path in self.previews():
            if path > self.preview_at(iteration):
                path.unlink(missing_ok=True)

    def preview_at(self, iteration: int) -> Path:
        """Return the path of the preview of an iteration."""
        return self.folder / "previews" / f"{iteration:07}.png"

    def previews(self) -> list[Path]:
        """Return the existing previews, in order."""
        return sorted((self.folder / "previews").glob("*.png"))

    def preview_prompts(self) -> tuple[str, ...]:
        """Return the prompts of the previews and the sheet, held-out prompts first."""
        config = self.config
        return config.preview_prompts or (config.held_out[:SHOWN] + config.prompts[:SHOWN])[:SHOWN]

    def scores(self) -> dict[str, Any] | None:
        """Return the scores before and after training (see evaluation.py); None before the end."""
        try:
            return json.loads((self.folder / SCORES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    @property
    def learned(self) -> Path | None:
        """File of the averaged adapter; None before the first checkpoint."""
        path = self.folder / LEARNED
        return path if path.is_file() else None

    @property
    def sheet(self) -> Path | None:
        """Image of the evaluation before and after training; None before the end."""
        path = self.folder / SHEET
        return path if path.is_file() else None

    def change(self, rate: float | None = None, memory: float | None = None) -> None:
        """Lower the learning rate or change the memory limit before a resume; None keeps a value.

        Raises:
            UserError: if the rate is higher than before, a value is invalid, or the run is in use.
        """
        config = replace(
            self.config,
            learning_rate=self.config.learning_rate if rate is None else rate,
            memory=self.config.memory if memory is None else memory,
        )
        config.check_values()
        if config.learning_rate > self.config.learning_rate:
            raise UserError(
                f"The learning rate of a run can only be lowered from {self.config.learning_rate:g}, not"
                f" raised to {config.learning_rate:g}: start another run for a higher one."
            )
        if config != self.config:
            with self.locked():
                config.save(self.folder)
            self.config = config

    def keep(self, library: Path = ADAPTERS) -> Path:
        """Save the averaged adapter to the library under the run's name; return its file.

        The configuration and, for finished runs, sheet.png and scores.json are saved beside it.

        Raises:
            UserError: if there is no checkpoint yet, the name is taken, or the library cannot be written.
        """
        name, target = self.config.name, library / self.config.name
        if not (self.folder / LEARNED).is_file():
            raise UserError(f"The run {name} has no result yet: resume it first.")
        if name in adapters(library) and not self._is_own(target):
            raise UserError(
                f"An adapter named {name} already exists: remove it or start a run with another name."
            )
        for file in (FILE, SHEET, SCORES):
            if (self.folder / file).is_file():
                write_atomically(target / file, (self.folder / file).read_bytes())
        return write_atomically(target / ADAPTER_FILE, (self.folder / LEARNED).read_bytes())

    def _is_own(self, target: Path) -> bool:
        """Return whether the adapter in a folder was saved by this run."""
        try:
            # The rate and the memory may have changed since; see `change`.
            other = replace(
                FinetuneConfig.load(target),
                learning_rate=self.config.learning_rate,
                memory=self.config.memory,
            )
            return asdict(other) == asdict(self.config)
        except UserError:
            return False

    def discard(self) -> None:
        """Delete the run's folder; adapters in the library stay.

        Raises:
            UserError: if the run is in use, or its folder cannot be deleted.
        """
        with self.locked():
            pass
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise UserError(f"Cannot delete {self.folder}: {error.strerror}; delete it manually.") from None

    def write_status(self, state: str, report: Report, seconds: float, sentence: str = "") -> None:
        """Write run.json."""
        status = {
            "state": state,
            "iteration": report.iteration,
            "iterations": self.config.iterations,
            "sentence": sentence,
            "seconds": round(seconds, 2),
            "left": round(report.left, 1),
            "doing": report.doing,
        }
        write_atomically(self.folder / "run.json", (json.dumps(status) + "\n").encode())

    def _lock(self) -> FileLock:
        return FileLock(self.folder / "lock", blocking=False)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock, which only one process can.

        Raises:
            UserError: if another process holds it.
        """
        try:
            with self._lock():
                yield
        except Timeout:
            raise UserError(
                f"The run {self.config.name} is in use by another process: wait for it, or stop it."
            ) from None

    def _is_locked(self) -> bool:
        try:
            with self._lock():
                return False
        except Timeout:
            return True
        except OSError:
            return False


def runs(root: Path = RUNS) -> list[Run]:
    """Return the runs in a folder, newest first; other folders and broken runs are skipped."""
    result = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        with contextlib.suppress(UserError):
            check_name(folder.name)
            result.append(Run.open(folder))
    return sorted(result, key=lambda run: os.path.getmtime(run.folder / FILE), reverse=True)
