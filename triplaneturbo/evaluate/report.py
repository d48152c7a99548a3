"""The table of an evaluation as Markdown: measured rows with intervals, and the paper's rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from triplaneturbo.evaluate.protocols import Protocol, QuotedRow

STAMP = "untrained judge: the figures mean nothing"
_COLUMNS = (
    "method",
    "CLIP",
    "prompts",
    "objects",
    "100 cos",
    "CLIPScore",
    "R@1 per view, %",
    "R@1 per object, %",
    "text to mesh, s",
    "text to GLB, s",
)
_FIGURES = {"cosine": 100, "clip_score": 1, "r_at_1_view": 100, "r_at_1_object": 100}
_MOST_LISTED = 20


def table(protocol: Protocol, prompts: int, results: Sequence[dict[str, Any]]) -> str:
    """Return the table of all results of a folder.

    Args:
        protocol: the protocol.
        prompts: number of prompts in the gallery.
        results: results as `results.write_result` stores them.
    """
    untrained = not all(result["clip"]["trained"] for result in results)
    lines = [f"# Evaluation `{protocol.name}`", ""]
    lines += [f"**{STAMP}**", ""] if untrained else []
    lines += ["| " + " | ".join(_COLUMNS) + " |", "|---|---|" + "---:|" * (len(_COLUMNS) - 2)]
    lines += [_measured(result) for result in results]
    lines += [_quoted(row) for row in protocol.quoted]
    lines += ["", f"Protocol: {protocol.source}. Brackets: 95 % bootstrap intervals over prompts."]
    lines += [f"Gallery of R@1: all {prompts:,} prompts (chance: {100 / prompts:.2g} %); ties count against."]
    lines += [f"CLIPScore is 2.5 max(cos, 0) x 100. *Quoted* rows: {protocol.quoted_from}."]
    lines += ["", "What the paper leaves open:", ""]
    lines += [f"- {name}: {choice}." for name, choice in protocol.open_points.items()]
    notes = list(dict.fromkeys(note for result in results for note in _notes(result, prompts)))
    lines += ["", "Notes:", "", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _measured(result: dict[str, Any]) -> str:
    name = _cell(result["method"]) + ("" if result["clip"]["trained"] else f" ({STAMP})")
    figures = [_interval(result["figures"][key], scale) for key, scale in _FIGURES.items()]
    times = [_interval(result["latency"].get(key), 1) for key in ("mesh", "glb")]
    counts = [f"{result['prompts']:,}", f"{result['objects']:,}"]
    return _row([name, _cell(result["clip"]["name"]), *counts, *figures, *times])


def _quoted(row: QuotedRow) -> str:
    figures = [row.cosine, row.clip_score, row.r_at_1, "-", row.latency, "-"]
    return _row([f"*{row.method} (quoted)*", row.clip, "-", "-", *figures])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _interval(value: dict[str, float] | None, scale: float) -> str:
    if value is None:
        return "-"
    mean, low, high = (scale * value[key] for key in ("mean", "low", "high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _notes(result: dict[str, Any], prompts: int) -> list[str]:
    name, notes = result["method"], [result["clip"]["note"]] if result["clip"]["note"] else []
    if result["prompts"] < prompts:
        notes.append(f"{name}: {result['prompts']:,} of {prompts:,} prompts; compare rows of the same only.")
    if result["latency"]:
        counted, devices = result["latency"]["counted"], ", ".join(result["latency"]["devices"])
        notes.append(f"{name}: latency of {counted:,} meshes on {devices}.")
    if result["empty"]:
        notes.append(f"{name}: empty, scored as blank images: {_listed(result['empty'])}.")
    if result["missing"]:
        notes.append(f"{name}: no mesh, not scored: {_listed(result['missing'])}.")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return f"{len(names):,} ({'; '.join(names[:_MOST_LISTED])}{more})"
