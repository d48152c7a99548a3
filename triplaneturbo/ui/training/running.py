"""The right side of the Advanced tab: the run, while it learns and when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.finetune.config import TEACHERS
from triplaneturbo.ui.generate.panels import seconds, text

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.training_service import RunState

POINTS = 120  # of a curve, at most: of more iterations, so many means are drawn
OTHERS, GRADIENT = "Regularisers", "Gradient's norm"
_TITLES = {"rgb": "Colours", "geometry": "Shapes", "sd": "Stable Diffusion", "mvdream": "MVDream",
           "richdreamer": "RichDreamer"}  # fmt: skip
SHEET_TITLE = {True: "Before, after, and as it should be", False: "Before and after"}
DISCARD, SURE, DELETE = "Stop and discard", "Discard for good?", "Delete the run"
_MEASURES = {
    "volume_iou": ("Volume", "overlap with the true shape; 1 is the best"),
    "silhouette_iou": ("Silhouette", "overlap of outlines; 1 is the best"),
    "color_error": ("Colour", "error; 0 is the best"),
    "r_at_1": ("CLIP", "how often it finds the prompt; 1 is the best"),
    "empty": ("Empty", "results without a surface"),
}


@dataclass(frozen=True)
class RunPane:
    """The components.

    Attributes:
        status: where the run stands.
        buttons: "pause", "resume", "keep", "discard".
        previews: the strip of pictures.
        plots: by title, in `curves`.
        end: what is seen when it is over, with the `sheet`, the `scores` and the rest.
    """

    status: gr.HTML
    buttons: dict[str, gr.Button]
    previews: gr.Gallery
    plots: dict[str, gr.LinePlot]
    curves: gr.Row
    end: gr.Column
    sheet: gr.Image
    scores: gr.HTML
    download: gr.DownloadButton
    repository: gr.Textbox
    token: gr.Textbox
    private: gr.Checkbox
    push: gr.Button
    pushed: gr.HTML


def build(engine: Engine) -> RunPane:
    """Put the components into the column that is being built."""
    status = gr.HTML(panel(None), elem_id="run-status")
    with gr.Row(elem_id="run-buttons"):
        labels = {"pause": "Pause", "resume": "Resume", "keep": "Stop and keep", "discard": DISCARD}
        buttons = {
            name: gr.Button(label, interactive=False, min_width=120, elem_id=f"run-{name}")
            for name, label in labels.items()
        }
    previews = gr.Gallery(
        label="Previews of the same prompts",
        show_label=False,
        rows=1,
        height=270,
        object_fit="contain",
        preview=False,
        interactive=False,
        buttons=["fullscreen"],
        elem_id="run-previews",
        elem_classes="tt-gallery",
    )
    with gr.Column(visible=False, elem_id="run-end") as end:
        gr.HTML(f'<h2 class="tt-heading">{SHEET_TITLE[bool(engine.words)]}</h2>')
        sheet = gr.Image(
            label=SHEET_TITLE[bool(engine.words)],
            show_label=False,
            interactive=False,
            type="filepath",
            buttons=["fullscreen"],
            elem_id="run-sheet",
        )
        scores = gr.HTML(elem_id="run-scores")
        download = gr.DownloadButton("Download the adapter", interactive=False, elem_id="run-download")
        with gr.Accordion("Push to the hub", open=False, elem_id="run-hub"):
            with gr.Row():
                repository = gr.Textbox(
                    label="Repository", placeholder="you/my-ducks", min_width=160, elem_id="hub-repository"
                )
                token = gr.Textbox(
                    label="Token",
                    type="password",
                    info="One that may write. It is used once and not kept.",
                    min_width=160,
                    elem_id="hub-token",
                )
            private = gr.Checkbox(
                True, label="Private", info="Only you see the repository.", elem_id="hub-private"
            )
            push = gr.Button("Push", elem_id="hub-push")
            pushed = gr.HTML(line(""), elem_id="hub-status")
    plots = {}
    with gr.Row(visible=False, elem_id="run-plots") as curves:
        for title in titles(engine):
            plots[title] = gr.LinePlot(
                x="iteration",
                y="loss",
                color="part",
                title=title,
                x_title="Iteration",
                y_title=" ",
                color_title=" ",
                height=190,
                min_width=240,
                tooltip="all",
                buttons=[],
                show_label=False,
                label=title,
                visible=False,
                elem_classes="tt-plot",
            )
    return RunPane(
        status,
        buttons,
        previews,
        plots,
        curves,
        end,
        sheet,
        scores,
        download,
        repository,
        token,
        private,
        push,
        pushed,
    )


def titles(engine: Engine) -> list[str]:
    """Of the plots: one a teacher, since their losses are of very different sizes.

    Stable Diffusion's comes last: it is not asked in every iteration, so that others are there before.
    """
    teachers = [name for name in TEACHERS[engine.model.config.world] if name != "sd"]
    return [*(_TITLES[name] for name in teachers), OTHERS, GRADIENT, _TITLES["sd"]]


def table(log: Sequence[Mapping[str, Any]], title: str) -> Any:
    """What a plot draws of a run's log: columns iteration, loss and part, of a long run the means."""
    import pandas

    width = max(1, -(-len(log) // POINTS))
    rows = []
    for begin in range(0, len(log), width):
        entries = log[begin : begin + width]
        for part in dict.fromkeys(part for entry in entries for part in entry):
            values = [entry[part] for entry in entries if part in entry]
            if part != "iteration" and _title(part) == title:
                rows.append((entries[-1]["iteration"], sum(values) / len(values), _short(part)))
    frame = pandas.DataFrame(rows, columns=["iteration", "loss", "part"])
    return frame.astype({"iteration": float, "loss": float, "part": str})


def _title(part: str) -> str:
    name = part.partition(" ")[0]
    return GRADIENT if part == "gradient" else _TITLES.get(name, OTHERS)


def _short(part: str) -> str:
    """A part's name where the plot's title says the teacher."""
    name, _, rest = part.partition(" ")
    return rest if name in _TITLES else part


def panel(state: RunState | None) -> str:
    """Where a run stands: a bar, a sentence, iterations, their speed and the time left."""
    if state is None:
        return _panel("idle", "No run yet: give some prompts and press Start.", 0.0, [])
    name = state.order.name
    done = f"{state.iteration:,} of {state.iterations:,}"
    words = {
        "running": f"{name} learns." if not state.doing else f"{name}: {state.doing}.",
        "pausing": f"{name} is being saved.",
        "ending": f"{name} is being put away{f': {state.doing}' if state.doing else ''}.",
        "ready": f"{name} was not begun yet: press Resume.",
        "paused": f"{name} is paused, and saved: press Resume to go on.",
        "stopped": f"{name} was cut off when its server ended: press Resume to go on from what was saved.",
        "failed": f"{name} has stopped. {state.sentence}",
        "finished": f"{name} has learned all it was to.",
    }[state.state]
    if state.kept and not state.active:
        words = f"{name} is in the library: choose it on the Generate tab."
    mood = {"running": "running", "pausing": "running", "ending": "running", "failed": "error"}.get(
        state.state, "done" if state.kept or state.state == "finished" else "idle"
    )
    numbers = [("Iterations", done)]
    if state.seconds and state.state == "running":
        numbers += [("An iteration", seconds(state.seconds)), ("Steps a second", f"{1 / state.seconds:.2g}")]
        numbers += [("Left", seconds(state.left))]
    return _panel(mood, words, state.iteration / max(1, state.iterations), numbers)


def _panel(mood: str, words: str, fraction: float, numbers: Sequence[tuple[str, str]]) -> str:
    shown = dict(numbers)
    cells = "".join(
        f"<div><dt>{label}</dt><dd>{text(shown.get(label, '–'))}</dd></div>"
        for label in ("Iterations", "An iteration", "Steps a second", "Left")
    )
    role = "alert" if mood == "error" else "status"
    return (
        f'<section class="tt-run" data-state="{mood}" aria-label="Run">'
        f'<div class="tt-bar" aria-hidden="true"><b style="width:{round(100 * fraction)}%"></b></div>'
        f'<p class="tt-words" role="{role}" title="{text(words)}">{text(words)}</p>'
        f'<dl class="tt-numbers">{cells}</dl></section>'
    )


def line(words: str, mood: str = "idle") -> str:
    """One line of what has come of something."""
    role = "alert" if mood == "error" else "status"
    shown = f'<span class="tt-words">{text(words)}</span>'
    return f'<p class="tt-told" data-state="{mood}" role="{role}">{shown}</p>'


def scored(scores: Mapping[str, Any] | None) -> str:
    """The scores before and after as a table; "" where there are none."""
    if scores is None:
        return ""
    rows = []
    for group in ("held out", "learned"):
        before, after = scores["before"].get(group), scores["after"].get(group)
        if before is None or after is None:
            continue
        for key, (name, meaning) in _MEASURES.items():
            if key == "empty" and not before.get(key) and not after.get(key):
                continue
            if before.get(key) is not None and after.get(key) is not None:
                rows.append(
                    f'<tr><th scope="row" title="{meaning}">{name}, {group}</th>'
                    f"<td>{_figure(before[key])}</td><td>{_figure(after[key])}</td><td>{meaning}</td></tr>"
                )
    head = '<tr><th scope="col">Score</th><th scope="col">Before</th><th scope="col">After</th><th></th></tr>'
    return (
        f'<table class="tt-scores"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
        if rows
        else ""
    )


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
