"""The page's own bits of HTML. What comes from outside passes `text`, so that it is shown and never run."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any

from triplaneturbo.request import Request
from triplaneturbo.serving.batch_jobs import BatchProgress
from triplaneturbo.serving.history_entry import HistoryEntry
from triplaneturbo.serving.jobs import Event, MeshReady, Stopped, Waiting, Working

STAGES = {
    "text": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding the planes",
    "surface": "Finding the surface",
    "clean": "Cleaning",
    "unwrap": "Unwrapping",
    "texture": "Painting the texture",
    "files": "Writing the files",
}
_NUMBERS = ("Vertices", "Faces", "Before", "Pieces", "GLB", "OBJ zip", "Seed", "Time")
_MOST_DOTS = 12
_NONE = "–"


def text(value: object) -> str:
    """`value` as HTML that shows just that: neither tags nor what Gradio's templates would fill in."""
    escaped = html.escape(str(value), quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def title() -> str:
    """The page's heading."""
    return (
        '<header class="tt-title"><h1>triplaneturbo</h1><p>A sentence becomes a textured mesh.</p></header>'
    )


def notice(sentence: str) -> str:
    """What the user should know about the model, above everything."""
    return f'<p class="tt-notice" role="note">{text(sentence)}</p>'


def report(lines: str) -> str:
    """The engine's report as a table. Where its files lie is told on the terminal only."""
    rows = [line.split(None, 1) for line in lines.splitlines() if line.strip()]
    cells = "".join(
        f"<dt>{text(row[0])}</dt><dd>{text(row[1] if len(row) > 1 else '')}</dd>"
        for row in rows
        if row[0] != "files"
    )
    return f'<dl class="tt-report">{cells}</dl>'


def reading(sentence: str, hint: str) -> str:
    """What the model does not know of the prompt; a hint in the same place where there is nothing to say."""
    state = "told" if sentence else "hint"
    return f'<p class="tt-reading" data-state="{state}" role="status">{text(sentence or hint)}</p>'


def vocabulary(words: dict[str, list[str]], labels: dict[str, str], examples: Sequence[str]) -> str:
    """The words that the model knows, by kind, under their labels, and prompts that it follows."""
    rows = [(labels[kind], ", ".join(known)) for kind, known in words.items()]
    rows.append(("For example", "; ".join(examples)))
    cells = "".join(f"<dt>{text(label)}</dt><dd>{text(row)}</dd>" for label, row in rows)
    return f'<dl class="tt-vocabulary">{cells}</dl>'


def limits() -> str:
    """What a model that reads any words is known to do badly."""
    told = "Counts (“three apples”), faces and hands come out wrong."
    return f'<p class="tt-vocabulary">{text(told)} Try one object, its colour and its material.</p>'


def ready() -> str:
    """The status line before anything was asked for."""
    return _status("idle", "Ready: press Generate, or Enter in the prompt.")


def starting() -> str:
    """The status line while the request is on its way."""
    return _status("running", "Starting")


def lost() -> str:
    """The status line while there is no server."""
    words = "The server does not answer; this page reconnects by itself and keeps your prompt and settings."
    return _status("lost", words)


def back() -> str:
    """The status line after the page came back from something that was under way."""
    words = "Connected again, but what was under way is gone: press Generate to make it."
    return _status("idle", words)


def status(event: Event) -> str:
    """The status line for what has just happened."""
    if isinstance(event, Waiting):
        others = "one other" if event.ahead == 1 else f"{event.ahead} others"
        return _status("running", f"Waiting for {others} to be done")
    if isinstance(event, Working):
        words = STAGES.get(event.stage, event.stage)
        if event.stage == "denoise":
            words += f", step {min(event.step + 1, event.steps)} of {event.steps}"
        dots = (event.step, event.steps) if event.steps <= _MOST_DOTS else None
        return _status("running", words, seconds(event.seconds), event.fraction, dots)
    if isinstance(event, Stopped):
        return _status("error", event.sentence) if event.sentence else _status("idle", "Cancelled.")
    total = event.facts["seconds"]["total"]
    if event.truncated_text:
        return _status(
            "done", f"Done, but the model does not read the end of this prompt: “{event.truncated_text}”"
        )
    if event.facts["memory_was_short"]:
        size = event.facts["settings"]["texture_size"]
        return _status("done", f"Done, but memory was short: the texture has {size} texels a side")
    if event.facts["unsimplified"]:
        return _status("done", "Done, but with all its faces: fewer could not be made watertight")
    if event.facts["cached"]:
        return _status("done", f"Done: kept from before, when it took {seconds(total)}.")
    return _status("done", f"Done in {seconds(total)}.")


def several(event: BatchProgress) -> str:
    """The status line when several are made."""
    missing = sum(isinstance(made, Stopped) for made in event.made)
    words = f"Done: {event.total - missing} of {event.total} have a surface." if missing else "Done."
    return _status("done", f"{words} Click one to open it.")


def chosen(entry: HistoryEntry | None) -> str:
    """What is known of the result of the history that was clicked."""
    if entry is None:
        return '<p class="tt-chosen">Results of this browser stay here. Click one to see it again.</p>'
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made))
    more = f"seed {entry.seed}, {made}, {entry.model}"
    more += (f" with {entry.adapter}" if entry.adapter else "") + (", pinned" if entry.pinned else "")
    return f'<p class="tt-chosen" title="{text(entry.prompt)}"><b>“{text(entry.prompt)}”</b> {text(more)}</p>'


def past(entry: HistoryEntry) -> str:
    """What stands below a result's picture."""
    return ("★ " if entry.pinned else "") + entry.prompt


def variant(request: Request) -> str:
    """What stands below a variant's picture."""
    if request.blend:
        return f"{round(100 * request.blend_weight)} %"
    if request.variation:
        return f"{request.seed} ~ {request.variation_seed}"
    return f"seed {request.seed}"


def _status(
    state: str, words: str, clock: str = "", fraction: float = 0.0, dots: tuple[int, int] | None = None
) -> str:
    width = 100 if state == "done" else round(100 * fraction)
    row = "".join(f'<i class="{"on" if k < dots[0] else ""}"></i>' for k in range(dots[1])) if dots else ""
    role = "alert" if state == "error" else "status"
    return (
        f'<div class="tt-status" data-state="{state}" role="{role}">'
        f'<div class="tt-bar" aria-hidden="true"><b style="width:{width}%"></b></div>'
        f'<div class="tt-line"><span class="tt-words" title="{text(words)}">{text(words)}</span>'
        f'<span class="tt-dots" aria-hidden="true">{row}</span><span class="tt-clock">{text(clock)}</span>'
        "</div></div>"
    )


def facts(made: MeshReady | None = None) -> str:
    """Counts, sizes and the seconds of each stage; dashes in the same places before there is a result."""
    values = [_NONE] * len(_NUMBERS)
    stages: dict[str, float] = {}
    caption = '<span class="tt-hint">No mesh yet.</span>'
    hint = check = ""
    if made is not None:
        known = made.facts
        stages = {name: spent for name, spent in known["seconds"].items() if name != "total"}
        sizes = [size(file["bytes"]) for file in known["files"]] + [_NONE, _NONE]
        total = seconds(known["seconds"]["total"])
        values = [f"{known[name]:,}" for name in ("vertices", "faces", "surface_faces", "components")]
        values += [*sizes[:2], str(known["seed"]), total]
        check = known["check"]
        caption = f"“{text(known['prompt'])}”"
        hint = "Drag to turn, scroll to zoom, double-click beside it for the front."
    numbers = "".join(
        f"<div><dt>{label}</dt><dd>{text(value)}</dd></div>"
        for label, value in zip(_NUMBERS, values, strict=True)
    )
    timings = "".join(
        f'<div title="{text(words)}"><dt>{name}</dt>'
        f"<dd>{text(seconds(stages[name]) if name in stages else _NONE)}</dd></div>"
        for name, words in STAGES.items()
    )
    title = text(made.facts["prompt"]) if made else ""
    return (
        f'<section class="tt-facts" aria-label="Result"><div class="tt-head"><p class="tt-caption" dir="auto"'
        f' title="{title}">{caption}</p><p class="tt-hint">{hint}</p></div>'
        f'<dl class="tt-numbers">{numbers}</dl>'
        f'<p class="tt-check" title="{text(check)}">{text(check)}</p>'
        f'<dl class="tt-stages" aria-label="Seconds of each stage">{timings}</dl></section>'
    )


def seconds(value: float) -> str:
    """Seconds with about two figures that matter: 0.042 s, 0.42 s, 4.2 s, 42 s, 7 min 02 s."""
    if value >= 99.5:
        whole = round(value)
        return f"{whole // 60} min {whole % 60:02d} s"
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2 if value >= 0.0995 else 3
    return f"{value:.{digits}f} s"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1_000_000:.1f} MB"


def file_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts for whoever calls the endpoint: files by name, since their folders are nobody's business."""
    files = [
        {"name": file["path"].rpartition("/")[2]} | {key: file[key] for key in file if key != "path"}
        for file in facts["files"]
    ]
    return facts | {"files": files}
