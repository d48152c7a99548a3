"""Execution of a run: set-up, evaluation, training, evaluation, one unit of work at a time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch

from triplaneturbo.distill.prd import Trainer
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.evaluation import Evaluation
from triplaneturbo.finetune.prepare import prepare
from triplaneturbo.finetune.preview import encode_grid, preview_tile
from triplaneturbo.finetune.run import LEARNED, SCORES, Report, Run
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.adapter import save_adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext

_SAVE_EVERY = 50  # iterations
_COLUMNS = 4  # images per row of a preview
_RECENT = 10  # iterations that the remaining time is estimated from


def train(
    run: Run, model_files: ModelFiles, device: torch.device, context: DistributedContext | None = None
) -> Generator[Report, None, None]:
    """Train a run, or resume it.

    Each `next` does one unit of work: an iteration, or a smaller step before and after training. Closing the
    generator saves a checkpoint, from which another call resumes. Only the main process writes to the folder.

    Args:
        run: the run.
        model_files: files of the model.
        device: device of the training, if `context` is None.
        context: processes of the run; None for a single process.

    Raises:
        UserError: if the run is in use elsewhere, a file is missing or broken, losses or weights are not
            finite, or the folder cannot be written; the last checkpoint stays intact.
    """
    context = context or DistributedContext(device=device)
    if not context.is_main_process:
        yield from run_steps(run, model_files, context)
        return
    with run.locked():
        since, before = time.monotonic(), float(run.status["seconds"])
        report = Report(int(run.status["iteration"]), run.config.iterations)

        def write_status(state: str, sentence: str = "") -> None:
            run.write_status(state, report, before + time.monotonic() - since, sentence)

        write_status("running")
        try:
            for report in run_steps(run, model_files, context):
                write_status("running")
                yield report
        except UserError as error:
            with contextlib.suppress(UserError):  # the disk may be full
                write_status("failed", str(error))
            raise
        except BaseException:
            with contextlib.suppress(UserError):
                write_status("paused")
            raise
        report = replace(report, doing="", left=0.0)
        write_status("finished")


def run_steps(
    run: Run, model_files: ModelFiles, context: DistributedContext
) -> Generator[Report, None, None]:
    """Do the work of `train` without status and locking."""
    total = run.config.iterations
    setup_steps = prepare(run.config, model_files, context, run.folder)
    while True:
        since = time.monotonic()
        try:
            doing = next(setup_steps)
        except StopIteration as end:
            training_setup: TrainingSetup = end.value
            break
        yield Report(_done(run), total, seconds=time.monotonic() - since, doing=doing)
    trainer = Trainer(
        context, training_setup.student, training_setup.teachers, training_setup.draw,
        training_setup.settings, run.folder,
        autocast=training_setup.autocast, fingerprint=training_setup.fingerprint,
        save_every=min(_SAVE_EVERY, run.config.preview_every or _SAVE_EVERY),
    )  # fmt: skip
    try:
        yield from _learn(run, training_setup, trainer)
    except BaseException:
        # Stopped or failed. Several processes may be at different iterations, so they resume from the last
        # checkpoint instead of saving another one.
        if context.size == 1:
            with contextlib.suppress(UserError):  # the original error, such as a full disk, is raised
                trainer.save()
                _save_adapter(run, trainer)
        raise


def _learn(run: Run, training_setup: TrainingSetup, trainer: Trainer) -> Generator[Report, None, None]:
    config, is_main_process = run.config, trainer.context.is_main_process
    shown = run.preview_prompts()
    evaluation = (
        Evaluation(training_setup, shown, _held_out(run), run.folder) if is_main_process and shown else None
    )
    for note in trainer.notes:
        yield Report(trainer.iteration, config.iterations, doing=note)
    if is_main_process:
        run.rewind(trainer.iteration)
        if _is_due(run, trainer):
            yield from _preview(run, training_setup, trainer)
    if evaluation is not None and trainer.iteration == 0:
        for doing in evaluation.evaluate("before"):
            yield Report(0, config.iterations, doing=doing)
    recent_seconds: list[float] = []
    while not (trainer.finished or run.ending):
        since = time.monotonic()
        losses = trainer.step()
        seconds = time.monotonic() - since
        recent_seconds = [*recent_seconds, seconds][-_RECENT:]
        due = is_main_process and _is_due(run, trainer)
        if is_main_process:
            _log(run, {"iteration": trainer.iteration, **losses})
            if due or trainer.saved == trainer.iteration:
                _save_adapter(run, trainer)
        left = sum(recent_seconds) / len(recent_seconds) * (config.iterations - trainer.iteration)
        yield Report(trainer.iteration, config.iterations, losses, seconds, left)
        if due:
            yield from _preview(run, training_setup, trainer)
    if run.ending:
        trainer.save()
        _save_adapter(run, trainer)
    if evaluation is not None and not (run.folder / SCORES).exists():
        _save_adapter(run, trainer)
        pieces = evaluation.evaluate("after")
        while True:
            with trainer.averaged():
                piece = next(pieces, None)
            if piece is None:
                break
            yield Report(trainer.iteration, config.iterations, doing=piece)
        evaluation.write_results()


def _save_adapter(run: Run, trainer: Trainer) -> None:
    """Save the averaged adapter for `Run.keep`."""
    with trainer.averaged():
        is_full = run.config.tuning == "full"
        save_adapter(trainer.student.generator, run.folder / LEARNED, is_full, trainer.settings.steps)


def _is_due(run: Run, trainer: Trainer) -> bool:
    """Return whether a preview of this iteration is due and does not exist yet."""
    every = run.config.preview_every
    if not every or not run.preview_prompts() or run.preview_at(trainer.iteration).exists():
        return False
    return trainer.iteration % every == 0 or trainer.finished


def _preview(run: Run, training_setup: TrainingSetup, trainer: Trainer) -> Generator[Report, None, None]:
    """Render the preview prompts, one per unit of work."""
    done, total = trainer.iteration, run.config.iterations
    tiles = []
    for prompt in run.preview_prompts():
        yield Report(done, total, doing=f"rendering {prompt}")
        with trainer.averaged():
            tiles.append(preview_tile(training_setup, prompt))
    path = write_atomically(run.preview_at(done), encode_grid(tiles, _COLUMNS))
    yield Report(done, total, preview=path)


def _held_out(run: Run) -> int:
    """Return the number of held-out prompts among the preview prompts."""
    held = set(run.config.held_out)
    return sum(prompt in held for prompt in run.preview_prompts())


def _log(run: Run, entry: dict[str, Any]) -> None:
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in entry.items()}
    try:
        with (run.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
    except OSError as error:
        raise UserError(f"Cannot write to {run.folder}: {error.strerror}; free space and resume.") from error


def _done(run: Run) -> int:
    return int(run.status["iteration"])
