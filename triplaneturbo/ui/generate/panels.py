"""HTML fragments of the page. Text from outside is escaped with `text`, so that it is never run as HTML."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from typing import Any

from triplaneturbo.domains.vocabulary import Vocabulary
from triplaneturbo.request import Request
from triplaneturbo.serving.batch_jobs import BatchProgress
from triplaneturbo.serving.history_entry import HistoryEntry
from triplaneturbo.serving.jobs import Event, MeshReady, Stopped, Waiting, Working
from triplaneturbo.serving.refine_request import refinement_words, rounded
from triplaneturbo.utils.durations import format_duration

STAGES = {
    "text": "Reading the prompt",
    "denoise": "Denoising",
    "decode": "Decoding the triplanes",
    "surface": "Extracting the surface",
    "clean": "Cleaning the mesh",
    "unwrap": "Unwrapping UVs",
    "texture": "Baking the texture",
    "files": "Writing files",
}
REFINE_STAGES = {
    "prepare": "Preparing the refinement",
    "path": "Forming the path",
    "refine": "Refining",
}
_DRAFT_STAGES = ("text", "denoise", "decode")
_LABELS = ("Vertices", "Faces", "Faces before", "Parts", "GLB", "OBJ zip", "Seed", "Time")
_MAX_DOTS = 12
_NONE = "–"


def text(value: object) -> str:
    """Escape a value for HTML and for Gradio's templates, which fill in `{...}` and `$`."""
    escaped = html.escape(str(value), quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def title() -> str:
    """Return the heading of the page."""
    return '<header class="tt-title"><h1>triplaneturbo</h1><p>Textured meshes from text.</p></header>'


def notice(sentence: str) -> str:
    """Return a notice about the model, shown above the page."""
    return f'<p class="tt-notice" role="note">{text(sentence)}</p>'


def report(lines: str) -> str:
    """Return the engine's report as a table, without paths, which only the terminal shows."""
    rows = [line.split(None, 1) for line in lines.splitlines() if line.strip()]
    cells = "".join(
        f"<dt>{text(row[0])}</dt><dd>{text(row[1] if len(row) > 1 else '')}</dd>"
        for row in rows
        if row[0] != "files"
    )
    return f'<dl class="tt-report">{cells}</dl>'


def feedback(sentence: str, hint: str) -> str:
    """Return the feedback on a prompt, or the hint if there is none."""
    state = "told" if sentence else "hint"
    return f'<p class="tt-reading" data-state="{state}" role="status">{text(sentence or hint)}</p>'


def vocabulary(known: Vocabulary) -> str:
    """Return a list of the words that the model knows, by kind, and example prompts."""
    rows = [(known.headings[kind], ", ".join(words)) for kind, words in known.words.items()]
    rows.append(("For example", "; ".join(known.examples)))
    cells = "".join(f"<dt>{text(label)}</dt><dd>{text(row)}</dd>" for label, row in rows)
    return f'<dl class="tt-vocabulary">{cells}</dl>'


def weaknesses() -> str:
    """Return the known weaknesses of an open-vocabulary model."""
    known = "Counts (“three apples”), faces and hands often come out wrong."
    return f'<p class="tt-vocabulary">{text(known)} Try one object with its colour and material.</p>'


def ready() -> str:
    """Return the status line of a new page."""
    return _status("idle", "Ready. Press Generate, or Enter in the prompt.")


def starting() -> str:
    """Return the status line of a request that is being sent."""
    return _status("running", "Starting")


def disconnected() -> str:
    """Return the status line while the server does not answer."""
    words = "The server does not answer. The page will reconnect and keep your prompt and settings."
    return _status("lost", words)


def reconnected() -> str:
    """Return the status line after a reload that interrupted a generation."""
    words = "Reconnected. The running generation was lost: press Generate to start it again."
    return _status("idle", words)


def restored(notes: list[str]) -> str:
    """Return the status line after the settings of a file are restored, with what differs from the file."""
    return _status("idle", " ".join(("Restored the settings of the file.", *notes)))


def link_copied() -> str:
    """Return the status line after the link of a result was copied."""
    return _status("idle", "Link copied. It opens this result in this browser only.")


def purpose(summary: str) -> str:
    """Return what a purpose has set."""
    return f'<p class="tt-note" role="status">{text(summary)}</p>'


def status(event: Event) -> str:
    """Return the status line of an event."""
    if isinstance(event, Waiting):
        jobs = "1 job" if event.ahead == 1 else f"{event.ahead} jobs"
        words = f"Waiting: {jobs} ahead"
        if event.refining:
            words += ", one of them a refinement" if event.ahead > 1 else ", a refinement"
            words += "" if event.seconds is None else f" that takes about {event.seconds} s more"
        return _status("running", words)
    if isinstance(event, Working):
        words = {**STAGES, **REFINE_STAGES}.get(event.stage, event.stage)
        if event.stage in ("denoise", "path", "refine"):
            words += f", step {min(event.step + 1, event.steps)} of {event.steps}"
        dots = (event.step, event.steps) if event.steps <= _MAX_DOTS else None
        return _status("running", words, format_duration(event.seconds), event.fraction, dots)
    if isinstance(event, Stopped):
        return _status("error", event.sentence) if event.sentence else _status("idle", "Cancelled.")
    total = event.facts["seconds"]["total"]
    if event.truncated_text:
        return _status("done", f"Done. The prompt is too long: the model ignored “{event.truncated_text}”.")
    if event.facts["memory_was_short"]:
        size = event.facts["settings"]["texture_size"]
        return _status("done", f"Done. Memory was low, so the texture is only {size} × {size} pixels.")
    if event.facts["unsimplified"]:
        return _status("done", "Done. The mesh keeps all its faces: fewer could not be made watertight.")
    notes = [file["note"] for file in event.facts["files"] if file.get("note")]
    if notes:
        return _status("done", f"Done. {notes[0]}")
    levels, wanted = event.facts.get("lod_faces"), event.facts["settings"].get("lods", 1)
    if levels and len(levels) < wanted:
        words = f"Done. The mesh has too few faces for {wanted} levels of detail: it has {len(levels)}."
        return _status("done", words)
    if event.facts["settings"].get("stopped_after"):
        words = f"Stopped: this is the result, {refinement_words(event.facts['settings'])}."
        return _status("done", f"{words} {event.facts['settings'].get('stop_reason') or ''}".rstrip())
    if event.facts["cached"]:
        return _status("done", f"Done. Reused the earlier result, which took {format_duration(total)}.")
    return _status("done", f"Done in {format_duration(total)}.")


def batch_done(event: BatchProgress) -> str:
    """Return the status line of a complete batch."""
    missing = sum(isinstance(made, Stopped) for made in event.made)
    words = f"Done. {event.total - missing} of {event.total} have a surface." if missing else "Done."
    return _status("done", f"{words} Click one to open it.")


def selected_entry(entry: HistoryEntry | None) -> str:
    """Return the description of the selected history entry."""
    if entry is None:
        return '<p class="tt-chosen">Results of this browser. Click one to open it.</p>'
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.made))
    more = f"seed {entry.seed}, {made}, {entry.model}"
    more += (f" with {entry.adapter}" if entry.adapter else "") + (", pinned" if entry.pinned else "")
    more = ", ".join([*_notes(entry.settings), more])
    return f'<p class="tt-chosen" title="{text(entry.prompt)}"><b>“{text(entry.prompt)}”</b> {text(more)}</p>'


def history_caption(entry: HistoryEntry) -> str:
    """Return the caption of a history thumbnail."""
    return ("★ " if entry.pinned else "") + ", ".join([entry.prompt, *_notes(entry.settings)])


def refine_choice(steps: int, estimate: float | None) -> str:
    """Return the label of a length of refinement, with its estimated duration if that is known."""
    return f"{steps} steps" + ("" if estimate is None else f", about {format_duration(rounded(estimate))}")


def refine_note() -> str:
    """Return what a refinement of a toy-world model shows."""
    return (
        '<p class="tt-note">The teachers of this toy world know the true objects, so refining shows that the'
        " machinery works, not that it generalises.</p>"
    )


def variant_caption(request: Request) -> str:
    """Return the caption of a variant's thumbnail."""
    if request.blend:
        return f"{round(100 * request.blend_weight)} %"
    if request.variation:
        return f"{request.seed} ~ {request.variation_seed}"
    return f"seed {request.seed}"


def _notes(settings: Mapping[str, Any]) -> list[str]:
    """Return what a caption says about a result besides its prompt: its look, and its refinement."""
    look, refined = settings.get("look"), refinement_words(settings)
    return ([f"look: {look}"] if look else []) + ([refined] if refined else [])


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
    """Return the counts, file sizes and stage timings of a mesh, or dashes in their places without one."""
    values = [_NONE] * len(_LABELS)
    stages: dict[str, float] = {}
    caption = '<span class="tt-hint">No mesh yet.</span>'
    hint = check = ""
    if made is not None:
        known = made.facts
        stages = {name: spent for name, spent in known["seconds"].items() if name != "total"}
        sizes = [size(file["bytes"]) for file in known["files"]] + [_NONE, _NONE]
        total = format_duration(known["seconds"]["total"])
        values = [f"{known[name]:,}" for name in ("vertices", "faces", "surface_faces", "components")]
        values += [*sizes[:2], str(known["seed"]), total]
        check = known["check"]
        notes = _notes(known.get("settings") or {})
        caption = text(", ".join([f"“{known['prompt']}”", *notes]))
        hint = "Drag to rotate, scroll to zoom, double-click the background to reset."
    numbers = "".join(
        f"<div><dt>{label}</dt><dd>{text(value)}</dd></div>"
        for label, value in zip(_LABELS, values, strict=True)
    )
    shown = STAGES
    if "refine" in stages:  # the stages of its draft are part of the preparation
        shown = REFINE_STAGES | {name: words for name, words in STAGES.items() if name not in _DRAFT_STAGES}
    timings = "".join(
        f'<div title="{text(words)}"><dt>{name}</dt>'
        f"<dd>{text(format_duration(stages[name]) if name in stages else _NONE)}</dd></div>"
        for name, words in shown.items()
    )
    title = text(made.facts["prompt"]) if made else ""
    return (
        f'<section class="tt-facts" aria-label="Result"><div class="tt-head"><p class="tt-caption" dir="auto"'
        f' title="{title}">{caption}</p><p class="tt-hint">{hint}</p></div>'
        f'<dl class="tt-numbers">{numbers}</dl>'
        f'<p class="tt-check" title="{text(check)}">{text(check)}</p>'
        f'<dl class="tt-stages" aria-label="Time per stage">{timings}</dl></section>'
    )


def size(count: int) -> str:
    """Format a number of bytes in kB or MB."""
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1_000_000:.1f} MB"


def file_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts for API callers: files by name, without the server's paths."""
    files = [
        {"name": file["path"].rpartition("/")[2]} | {key: file[key] for key in file if key != "path"}
        for file in facts["files"]
    ]
    return facts | {"files": files}
