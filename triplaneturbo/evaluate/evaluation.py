"""An evaluation from meshes to the table: meshes, views, embeddings, scores.

Each process takes every size-th object. The one that finds all objects finished computes the scores; if
two do, they write the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.judges import JudgeFiles
from triplaneturbo.evaluate.methods import Item, MeshRecord, Method
from triplaneturbo.evaluate.phases import Embeddings, Views, make_missing
from triplaneturbo.evaluate.results import write_result, write_table

# Called with the name of a phase, the number of finished items and the number of all.
OnProgress = Callable[[str, int, int], None]


def evaluate(
    evaluation: Evaluation,
    method: Method,
    judges: Sequence[JudgeFiles],
    device: torch.device,
    sheet: int,
    on_progress: OnProgress,
    rank: int = 0,
    size: int = 1,
) -> str | None:
    """Make what is missing and, once all objects are finished, the scores.

    Args:
        evaluation: a claimed folder.
        method: the meshes.
        judges: the CLIP models.
        device: device of the CLIP models.
        sheet: number of objects on the contact sheet; 0: no sheet.
        on_progress: see `OnProgress`.
        rank, size: index of this process, and number of processes.

    Returns:
        the table; None if other processes have not finished their objects.

    Raises:
        UserError: a mesh, model or judge is invalid, or a file cannot be written.
    """
    mine = [item for item in method.items if item.index % size == rank]
    unmade = [item for item in mine if method.finished(item) is None]
    for number, _ in enumerate(method.make(unmade) if unmade else (), 1):
        on_progress("meshes", len(mine) - len(unmade) + number, len(mine))
    made = _finished(method, mine)
    for number, _ in enumerate(make_missing(evaluation.views, made), 1):
        on_progress("views", number, len(made))
    embedded = [evaluation.embeddings(judge, device) for judge in judges]
    for embeddings in embedded:
        for number, _ in enumerate(make_missing(embeddings, made), 1):
            on_progress(f"embeddings of {embeddings.files.name}", number, len(made))
        if mine:
            embeddings.gallery(evaluation.gallery)
        embeddings.unload()
    everything = _finished(method, method.items)
    if len(everything) < len(method.items):
        return None
    phases: list[Views | Embeddings] = [evaluation.views, *embedded]
    if not all(phase.has(mesh) for phase in phases for mesh in everything):
        return None
    for embeddings in embedded:
        write_result(evaluation, method, everything, embeddings, sheet)
    return write_table(evaluation)


def _finished(method: Method, items: Sequence[Item]) -> list[MeshRecord]:
    return [mesh for item in items if (mesh := method.finished(item)) is not None]
