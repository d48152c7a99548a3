"""An evaluation: meshes, views, embeddings, scores, in a folder that several methods and processes share.

    evaluation.json                 protocol and prompts; the same for everything in the folder
    meshes/ views/ embeddings/      results of the phases, by key (see store.py)
    results/NAME.json               scores of one method by one judge
    scores.json  table.md           all of them
    sheet-NAME.png                  contact sheet of one method and judge

Each process takes every size-th object. The one that finds all objects finished computes the scores; if two
do, they write the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from triplaneturbo import __version__
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.bootstrap import bootstrap_mean
from triplaneturbo.evaluate.judges import JudgeFiles, describe
from triplaneturbo.evaluate.mesh_files import normalized
from triplaneturbo.evaluate.methods import Item, MadeMesh, Method
from triplaneturbo.evaluate.phases import Embeddings, Views, make_missing
from triplaneturbo.evaluate.protocols import Protocol
from triplaneturbo.evaluate.report import STAMP, table
from triplaneturbo.evaluate.scores import ObjectScore, mean_by_prompt, score_object, summarize
from triplaneturbo.evaluate.sheet import SheetEntry, contact_sheet
from triplaneturbo.evaluate.store import digest
from triplaneturbo.evaluate.views import on_background
from triplaneturbo.utils.atomic_files import write_whole

# Called with the name of a phase, the number of finished items and the number of all.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """The folder of an evaluation.

    Attributes:
        folder: the folder.
        protocol: the protocol.
        gallery: all prompts, each once.
    """

    folder: Path
    protocol: Protocol
    gallery: tuple[str, ...]

    @property
    def meshes(self) -> Path:
        """The folder of generated meshes."""
        return self.folder / "meshes"

    @cached_property
    def views(self) -> Views:
        """The views."""
        return Views(self.folder / "views", self.protocol)

    def embeddings(self, judge: JudgeFiles, device: torch.device) -> Embeddings:
        """Return the embeddings by a judge."""
        return Embeddings(self.folder / "embeddings", judge, self.protocol, self.views, device)

    def check(self) -> bool:
        """Return whether the folder holds this evaluation already.

        Raises:
            UserError: it holds another evaluation.
        """
        try:
            other = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {self._record} ({error}); use another folder.") from None
        for key, name in (("protocol", "protocol"), ("prompts", "list of prompts")):
            if other.get(key) != self._contents()[key]:
                raise UserError(f"{self.folder} holds an evaluation with another {name}; use another --to.")
        return True

    def claim(self) -> None:
        """Record protocol and prompts in the folder, unless it holds this evaluation already.

        Raises:
            UserError: it holds another evaluation, or cannot be written.
        """
        if not self.check():
            text = json.dumps(self._contents(), indent=1, ensure_ascii=False)
            write_whole(self._record, f"{text}\n".encode())

    @property
    def _record(self) -> Path:
        return self.folder / "evaluation.json"

    def _contents(self) -> dict[str, Any]:
        """Return what all results in the folder have in common, as values of JSON."""
        protocol = asdict(self.protocol)
        shared = {key: protocol[key] for key in ("name", "views", "prefix", "background")}
        contents: dict[str, Any] = json.loads(json.dumps({"protocol": shared, "prompts": self.gallery}))
        return contents


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
        _write_result(evaluation, method, everything, embeddings, sheet)
    return _write_table(evaluation)


def _finished(method: Method, items: Sequence[Item]) -> list[MadeMesh]:
    return [mesh for item in items if (mesh := method.finished(item)) is not None]


def _write_result(
    evaluation: Evaluation, method: Method, meshes: Sequence[MadeMesh], embeddings: Embeddings, sheet: int
) -> None:
    """Write the scores of a method by one judge, and its contact sheet."""
    judge, items = embeddings.files, method.items
    gallery = embeddings.gallery(evaluation.gallery)
    scores = [
        score_object(embeddings.read(mesh), gallery, item.index)
        for item, mesh in zip(items, meshes, strict=True)
    ]
    empty = [evaluation.views.is_empty(mesh) for mesh in meshes]
    names = _names(items)
    prompts = [item.prompt for item in items]
    result = {
        "method": method.label,
        "identity": method.identity,
        "clip": {
            **describe(judge),
            "note": judge.deviation(evaluation.protocol.clips),
            "background": embeddings.background,
            "prefix": embeddings.prefix,
        },
        "stamp": "" if judge.trained else STAMP,
        "version": __version__,
        "prompts": len(set(prompts)),
        "objects": len(items),
        "figures": {name: asdict(value) for name, value in summarize(prompts, scores).items()},
        "latency": _latency(items, meshes),
        "empty": [name for name, blank in zip(names, empty, strict=True) if blank],
        "missing": list(method.missing),
        "scores": [
            {"prompt": item.prompt, "seed": item.seed, "empty": blank, **asdict(score)}
            for item, score, blank in zip(items, scores, empty, strict=True)
        ],
    }
    stem = f"{normalized(method.label)[:60]}-{normalized(judge.name)[:60]}-{_suffix(method, judge)}"
    if sheet > 0:
        title = f"{method.label}, judged by {judge.name}: rank among {len(gallery):,} prompts"
        title += "" if judge.trained else f"; {STAMP}"
        entries = _entries(evaluation, meshes, names, scores, empty, embeddings, sheet)
        image = contact_sheet(entries, evaluation.protocol.views, title)
        write_whole(evaluation.folder / f"sheet-{stem}.png", image)
    data = json.dumps(result, ensure_ascii=False) + "\n"
    write_whole(evaluation.folder / "results" / f"{stem}.json", data.encode())


def _suffix(method: Method, judge: JudgeFiles) -> str:
    """Return what tells two methods or judges of the same name apart in a file name."""
    return digest(method=method.identity, clip=judge.name)[:8]


def _names(items: Sequence[Item]) -> list[str]:
    """Return the prompts, with the seed where there are several."""
    several = len({item.seed for item in items}) > 1
    return [f"{item.prompt} (seed {item.seed})" if several else item.prompt for item in items]


def _latency(items: Sequence[Item], meshes: Sequence[MadeMesh]) -> dict[str, Any]:
    """Return the mean seconds to mesh and GLB, without the first mesh of each process if there are others."""
    timed = [(item, mesh) for item, mesh in zip(items, meshes, strict=True) if mesh.seconds]
    timed = [pair for pair in timed if not pair[1].first] or timed
    if not timed:
        return {}
    prompts = [item.prompt for item, _ in timed]
    means = {
        key: asdict(bootstrap_mean(mean_by_prompt(prompts, [mesh.seconds[key] for _, mesh in timed])))
        for key in ("mesh", "glb")
    }
    return {**means, "counted": len(timed), "devices": sorted({mesh.device for _, mesh in timed})}


def _entries(
    evaluation: Evaluation,
    meshes: Sequence[MadeMesh],
    names: Sequence[str],
    scores: Sequence[ObjectScore],
    empty: Sequence[bool],
    embeddings: Embeddings,
    count: int,
) -> list[SheetEntry]:
    """Return the entries of a sheet: objects at equal distances in the list."""
    count = min(count, len(meshes))
    numbers = [number * len(meshes) // count for number in range(count)]
    return [
        SheetEntry(
            names[number],
            on_background(evaluation.views.read(meshes[number]), embeddings.background),
            scores[number],
            empty[number],
        )
        for number in numbers
    ]


def _write_table(evaluation: Evaluation) -> str:
    """Write scores.json and table.md from all results of the folder; return the table."""
    with FileLock(evaluation.folder / ".table.lock"):
        paths = sorted((evaluation.folder / "results").glob("*.json"))
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        text = table(evaluation.protocol, len(evaluation.gallery), results)
        whole = {
            "stamp": STAMP if any(result["stamp"] for result in results) else "",
            "protocol": asdict(evaluation.protocol),
            "gallery": len(evaluation.gallery),
            "results": results,
        }
        data = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        write_whole(evaluation.folder / "scores.json", data.encode())
        write_whole(evaluation.folder / "table.md", text.encode())
    return text
