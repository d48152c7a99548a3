"""Training of one run of an ablation, from a new adapter to its file."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from triplaneturbo.distill.prd import Trainer
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.ablation_folder import TRAINING, AblationFolder
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.finetune.config import RENDERINGS
from triplaneturbo.finetune.prepare import prepare
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.adapter import save_adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import CollectiveError, DistributedContext

_SAVE_EVERY, _SAVE_EVERY_FULL = 20, 200  # iterations; a checkpoint of the full model takes gigabytes

# Called with the run, what is done, and the finished and all iterations.
OnProgress = Callable[[AblationRun, str, int, int], None]


def train_run(
    run: AblationRun,
    folder: AblationFolder,
    model_files: ModelFiles,
    context: DistributedContext,
    on_progress: OnProgress,
) -> None:
    """Train a run or resume it, then save its adapter and its record `TRAINING`; no-op if it has one.

    The record has the trained "iterations", the number of trainable "parameters", the "seconds" and
    "cpu_seconds" of the iterations, moving averages of the last "losses", and in "diverged" the error of a
    run whose loss or weights were not finite: its adapter is that of the last good checkpoint.

    Raises:
        UserError: a file is missing or broken, a prompt is unsupported, or the folder cannot be written.
    """
    if folder.read(run, TRAINING) is not None:
        return
    training_setup = _prepare(run, folder, model_files, context, on_progress)
    place = folder.run_folder(run)
    trainer = Trainer(
        context, training_setup.student, training_setup.teachers, training_setup.draw,
        training_setup.settings, place, autocast=training_setup.autocast,
        fingerprint=training_setup.fingerprint,
        save_every=_SAVE_EVERY if training_setup.config.domain == TOYWORLD else _SAVE_EVERY_FULL,
    )  # fmt: skip
    cost = _Cost(place / "cost.json", trainer.iteration)
    diverged = ""
    try:
        while not (trainer.finished or diverged):
            try:
                trainer.step()
            except CollectiveError as error:
                diverged = str(error)
            if trainer.saved == trainer.iteration and context.is_main_process:
                cost.save(trainer.iteration)
            on_progress(run, "training", trainer.iteration, run.config.iterations)
    except BaseException:
        if context.size == 1:  # several processes resume from the last checkpoint
            with contextlib.suppress(UserError):  # the original error, such as a full disk, is raised
                trainer.save()
                cost.save(trainer.iteration)
        raise
    generator = training_setup.student.generator
    with trainer.averaged():
        if context.is_main_process:
            save_adapter(generator, folder.adapter(run), run.config.tuning == "full")
    if context.is_main_process:
        parameters = sum(p.numel() for p in generator.parameters() if p.requires_grad)
        record = {"iterations": trainer.iteration, "parameters": parameters, "diverged": diverged}
        losses = {name: round(value, 6) for name, value in trainer.log.items()}
        folder.write(run, TRAINING, {**record, **cost.totals, "losses": losses})
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
    context.wait()
    del trainer, training_setup, generator
    gc.collect()  # the scores may need the memory


def _prepare(
    run: AblationRun,
    folder: AblationFolder,
    model_files: ModelFiles,
    context: DistributedContext,
    on_progress: OnProgress,
) -> TrainingSetup:
    """Return the setup of a run; rendered views and cleaned prompts are shared by all runs."""
    steps = prepare(run.config, model_files, context, folder.folder)
    while True:
        try:
            on_progress(run, next(steps), 0, run.config.iterations)
        except StopIteration as end:
            setup: TrainingSetup = end.value
            return _both_renderings(setup) if setup.config.domain == TOYWORLD else setup


def _both_renderings(training_setup: TrainingSetup) -> TrainingSetup:
    """Return a setup whose teachers score both renderings, as all teachers of the paper do.

    The built-in model's recipe shows shapes to its teachers in the volume rendering only, so that nothing
    would teach them in a run without it.
    """
    settings = training_setup.settings
    teachers = {name: replace(own, renderings=RENDERINGS) for name, own in settings.teachers.items()}
    return replace(training_setup, settings=replace(settings, teachers=teachers))


class _Cost:
    """The time that the iterations of a run took, over all its interruptions.

    Args:
        path: file of the cost up to the last checkpoint.
        iteration: iteration that the run resumes from.
    """

    def __init__(self, path: Path, iteration: int) -> None:
        self._path = path
        self._before: dict[str, float] = {"seconds": 0.0, "cpu_seconds": 0.0}
        with contextlib.suppress(OSError, ValueError):
            earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            # The process may have been killed between a checkpoint and its cost.
            part = iteration / earlier["iteration"] if iteration else 0.0
            self._before = {key: part * earlier[key] for key in self._before}
        self._start = time.perf_counter(), time.process_time()

    @property
    def totals(self) -> dict[str, float]:
        """The "seconds" and "cpu_seconds" so far."""
        seconds, cpu_seconds = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        return {
            "seconds": round(self._before["seconds"] + seconds, 2),
            "cpu_seconds": round(self._before["cpu_seconds"] + cpu_seconds, 2),
        }

    def save(self, iteration: int) -> None:
        """Write the totals at a checkpoint."""
        if iteration:
            write_atomically(
                self._path, (json.dumps({"iteration": iteration, **self.totals}) + "\n").encode()
            )
