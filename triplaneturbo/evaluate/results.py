"""The results of an evaluation: scores of each method and judge, contact sheets, and the common table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from filelock import FileLock

from triplaneturbo import __version__
from triplaneturbo.evaluate.bootstrap import bootstrap_mean
from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.judges import JudgeFiles, describe
from triplaneturbo.evaluate.mesh_matching import normalized
from triplaneturbo.evaluate.methods import Item, MeshRecord, Method
from triplaneturbo.evaluate.phases import Embeddings
from triplaneturbo.evaluate.report import STAMP, table
from triplaneturbo.evaluate.scores import ObjectScore, mean_by_prompt, score_object, summarize
from triplaneturbo.evaluate.sheet import SheetEntry, contact_sheet
from triplaneturbo.evaluate.store import digest
from triplaneturbo.evaluate.views import on_background
from triplaneturbo.utils.atomic_files import write_atomically


def write_result(
    evaluation: Evaluation, method: Method, meshes: Sequence[MeshRecord], embeddings: Embeddings, sheet: int
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
        write_atomically(evaluation.folder / f"sheet-{stem}.png", image)
    data = json.dumps(result, ensure_ascii=False) + "\n"
    write_atomically(evaluation.folder / "results" / f"{stem}.json", data.encode())


def _suffix(method: Method, judge: JudgeFiles) -> str:
    """Return what tells two methods or judges of the same name apart in a file name."""
    return digest(method=method.identity, clip=judge.key)[:8]


def _names(items: Sequence[Item]) -> list[str]:
    """Return the prompts, with the seed where there are several."""
    several = len({item.seed for item in items}) > 1
    return [f"{item.prompt} (seed {item.seed})" if several else item.prompt for item in items]


def _latency(items: Sequence[Item], meshes: Sequence[MeshRecord]) -> dict[str, Any]:
    """Return the mean seconds to mesh and GLB, without the first mesh of each process if possible."""
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
    meshes: Sequence[MeshRecord],
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


def write_table(evaluation: Evaluation) -> str:
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
        write_atomically(evaluation.folder / "scores.json", data.encode())
        write_atomically(evaluation.folder / "table.md", text.encode())
    return text
