"""An ablation from new adapters to the tables: every run is trained, then scored, then all are tabulated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from filelock import FileLock

from triplaneturbo.evaluate.ablation_folder import RESULT, TRAINING, AblationFolder
from triplaneturbo.evaluate.ablation_report import QUOTED_NOTE, budget_note, markdown, record
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.evaluate.ablation_scores import Scorer
from triplaneturbo.evaluate.ablation_tables import AblationTable
from triplaneturbo.evaluate.ablation_training import OnProgress, train_run
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext


def ablate(
    folder: AblationFolder,
    tables: Sequence[AblationTable],
    runs: Sequence[AblationRun],
    model_files: ModelFiles,
    scorer: Scorer,
    context: DistributedContext,
    on_progress: OnProgress,
) -> str:
    """Train and score all runs that are not finished, then write the tables; return them as Markdown.

    A killed process resumes each run from its last checkpoint. Runs that another process works on are
    skipped, so that several processes may share a folder; the tables then lack these runs.

    Args:
        folder: the claimed folder.
        tables: the tables.
        runs: runs of the tables, in order.
        model_files: files of the model.
        scorer: scores the adapters.
        context: processes that train each run together.
        on_progress: see `OnProgress`.

    Raises:
        UserError: a run cannot be trained or scored, or a file cannot be written.
    """
    for run in runs:
        _finish(run, folder, model_files, scorer, context, on_progress)
    return write_tables(folder, tables, runs, scorer) if context.is_main_process else ""


def _finish(
    run: AblationRun,
    folder: AblationFolder,
    model_files: ModelFiles,
    scorer: Scorer,
    context: DistributedContext,
    on_progress: OnProgress,
) -> None:
    """Train and score a run, unless it is finished or another process works on it."""
    if not context.is_main_process:
        if not context.any(False):
            _train_and_score(run, folder, model_files, scorer, context, on_progress)
        return
    with folder.locked(run) as is_mine:
        skip = not is_mine or folder.read(run, RESULT) is not None
        if not context.any(skip):
            _train_and_score(run, folder, model_files, scorer, context, on_progress)


def _train_and_score(
    run: AblationRun,
    folder: AblationFolder,
    model_files: ModelFiles,
    scorer: Scorer,
    context: DistributedContext,
    on_progress: OnProgress,
) -> None:
    train_run(run, folder, model_files, context, on_progress)
    on_progress(run, "scoring", run.config.iterations, run.config.iterations)
    scores = scorer.score(run, context)
    if scores is not None:
        folder.write(run, RESULT, {**(folder.read(run, TRAINING) or {}), **scores})
    context.wait()


def write_tables(
    folder: AblationFolder, tables: Sequence[AblationTable], runs: Sequence[AblationRun], scorer: Scorer
) -> str:
    """Write tables.json and table.md from the finished runs; return the latter.

    Raises:
        UserError: a result is broken, or a file cannot be written.
    """
    # The process that writes last has seen the results of all others.
    with FileLock(folder.folder / ".table.lock"):
        results = read_results(folder, runs)
        unfinished = [run.name for run in runs if run.seed not in results.get(run.variant.name, {})]
        notes = [budget_note(folder.budget), *scorer.notes, QUOTED_NOTE]
        if unfinished:
            notes.append(f"Unfinished: {', '.join(unfinished)}.")
        text = markdown(tables, results, scorer.figures, scorer.baseline(), notes)
        data = json.dumps(record(tables, results, asdict(folder.budget)), indent=1) + "\n"
        write_atomically(folder.folder / "tables.json", data.encode())
        write_atomically(folder.folder / "table.md", text.encode())
    return text


def read_results(folder: AblationFolder, runs: Sequence[AblationRun]) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the results of the finished runs by variant and seed, without those of single meshes."""
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        result = folder.read(run, RESULT)
        if result is not None:
            result.pop("results", None)
            results.setdefault(run.variant.name, {})[run.seed] = result
    return results
