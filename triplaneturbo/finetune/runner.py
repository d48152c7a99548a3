"""What a run does, one piece at a time: get ready, judge, learn, judge again."""

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
from triplaneturbo.finetune.preview import png, tile
from triplaneturbo.finetune.run import LEARNED, SCORES, Report, Run
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.adapter import save_adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.utils.atomic_files import write_whole
from triplaneturbo.utils.distributed import DistributedContext

_SAVE_EVERY = 50  # iterations
_COLUMNS = 4  # of a preview
_RECENT = 10  # iterations from whose seconds those to come are estimated


def train(
    run: Run, found: ModelFiles, device: torch.device, team: DistributedContext | None = None
) -> Generator[Report, None, None]:
    """Train a run, or resume it.

    Each `next` does one piece of work: an iteration, or less before and after them. Closing the generator
    between two pieces saves a checkpoint, from which another call resumes. Only the main process of a team
    writes into the folder.

    Raises:
        UserError: the run is under way elsewhere, a file is missing or broken, what is learned is not finite,
            or nothing can be written; what was learned is in the last checkpoint.
    """
    team = team or DistributedContext(device=device)
    if not team.is_main_process:
        yield from work(run, found, team)
        return
    with run.held():
        since, before = time.monotonic(), float(run.status["seconds"])
        told = Report(int(run.status["iteration"]), run.order.iterations)

        def tell(state: str, sentence: str = "") -> None:
            run.tell(state, told, before + time.monotonic() - since, sentence)

        tell("running")
        try:
            for told in work(run, found, team):
                tell("running")
                yield told
        except UserError as error:
            with contextlib.suppress(UserError):  # the disk may be full
                tell("failed", str(error))
            raise
        except BaseException:
            with contextlib.suppress(UserError):
                tell("paused")
            raise
        told = replace(told, doing="", left=0.0)
        tell("finished")


def work(run: Run, found: ModelFiles, team: DistributedContext) -> Generator[Report, None, None]:
    """Do a run, or go on with it; see `train`."""
    total = run.order.iterations
    pieces = prepare(run.order, found, team, run.folder)
    while True:
        since = time.monotonic()
        try:
            doing = next(pieces)
        except StopIteration as end:
            training_setup: TrainingSetup = end.value
            break
        yield Report(_done(run), total, seconds=time.monotonic() - since, doing=doing)
    trainer = Trainer(
        team, training_setup.student, training_setup.teachers, training_setup.draw, training_setup.settings,
        run.folder,
        autocast=training_setup.autocast, mark=training_setup.mark,
        save_every=min(_SAVE_EVERY, run.order.preview_every or _SAVE_EVERY),
    )  # fmt: skip
    try:
        yield from _learn(run, training_setup, trainer)
    except BaseException:
        # Stopped between two pieces, or in one, or by an error. The processes of a team stop where they are,
        # each at another place, and go on from the last checkpoint.
        if team.size == 1:
            with contextlib.suppress(UserError):  # that of a full disk, say, is on its way already
                trainer.save()
                _keep(run, trainer)
        raise


def _learn(run: Run, training_setup: TrainingSetup, trainer: Trainer) -> Generator[Report, None, None]:
    order, is_main_process = run.order, trainer.team.is_main_process
    shown = run.preview_prompts()
    judging = (
        Evaluation(training_setup, shown, _held_out(run), run.folder) if is_main_process and shown else None
    )
    for note in trainer.notes:
        yield Report(trainer.iteration, order.iterations, doing=note)
    if is_main_process:
        run.rewind(trainer.iteration)
        if _is_due(run, trainer):
            yield from _preview(run, training_setup, trainer)
    if judging is not None and trainer.iteration == 0:
        for doing in judging.look("before"):
            yield Report(0, order.iterations, doing=doing)
    recent: list[float] = []
    while not (trainer.finished or run.ending):
        since = time.monotonic()
        losses = trainer.step()
        seconds = time.monotonic() - since
        recent = [*recent, seconds][-_RECENT:]
        due = is_main_process and _is_due(run, trainer)
        if is_main_process:
            _log(run, {"iteration": trainer.iteration, **losses})
            if due or trainer.saved == trainer.iteration:
                _keep(run, trainer)
        left = sum(recent) / len(recent) * (order.iterations - trainer.iteration)
        yield Report(trainer.iteration, order.iterations, losses, seconds, left)
        if due:
            yield from _preview(run, training_setup, trainer)
    if run.ending:
        trainer.save()
        _keep(run, trainer)
    if judging is not None and not (run.folder / SCORES).exists():
        _keep(run, trainer)
        pieces = judging.look("after")
        while True:
            with trainer.averaged():
                piece = next(pieces, None)
            if piece is None:
                break
            yield Report(trainer.iteration, order.iterations, doing=piece)
        judging.conclude()


def _keep(run: Run, trainer: Trainer) -> None:
    """Leave the adapter, averaged, where `Run.keep` finds it."""
    with trainer.averaged():
        whole = run.order.tuning == "full"
        save_adapter(trainer.student.generator, run.folder / LEARNED, whole)


def _is_due(run: Run, trainer: Trainer) -> bool:
    """Whether a preview belongs to this iteration, and was not drawn before the run was stopped."""
    every = run.order.preview_every
    if not every or not run.preview_prompts() or run.preview_at(trainer.iteration).exists():
        return False
    return trainer.iteration % every == 0 or trainer.finished


def _preview(run: Run, training_setup: TrainingSetup, trainer: Trainer) -> Generator[Report, None, None]:
    """Draw the fixed prompts, one a piece of work."""
    done, total = trainer.iteration, run.order.iterations
    tiles = []
    for prompt in run.preview_prompts():
        yield Report(done, total, doing=f"drawing {prompt}")
        with trainer.averaged():
            tiles.append(tile(training_setup, prompt))
    path = write_whole(run.preview_at(done), png(tiles, _COLUMNS))
    yield Report(done, total, preview=path)


def _held_out(run: Run) -> int:
    """How many of the prompts that are shown, from the first on, are held out."""
    held = set(run.order.held_out)
    return sum(prompt in held for prompt in run.preview_prompts())


def _log(run: Run, entry: dict[str, Any]) -> None:
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in entry.items()}
    try:
        with (run.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")
    except OSError as error:
        raise UserError(f"Cannot write in {run.folder}: {error.strerror}; free space and go on.") from error


def _done(run: Run) -> int:
    return int(run.status["iteration"])
