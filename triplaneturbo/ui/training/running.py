"""Right column of the Advanced tab: the run during training and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.domains.registry import measures
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.ui.generate.panels import text
from triplaneturbo.utils.durations import format_duration

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.training_service import RunState

MAX_POINTS = 120  # of a curve; longer logs are averaged over windows
OTHERS, GRADIENT = "Regularisers", "Gradient norm"
SHEET_TITLE = {True: "Before, after and ground truth", False: "Before and after"}
DISCARD, CONFIRM, DELETE = "Stop and discard", "Discard permanently?", "Delete run"


@dataclass(frozen=True)
class RunView:
    """Components of the run column.

    Attributes:
        status: progress of the run.
        buttons: "pause", "resume", "keep" and "discard".
        previews: gallery of previews during training.
        plots: loss curves by title, inside `curves`.
        end: results, visible when the run is over.
        sheet: comparison image of the prompts before and after.
        scores: table of scores before and after.
        download: downloads the adapter.
        repository: name of the repository to push to; with `token`, `private`, `push` and `pushed` (status).
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


def build(engine: Engine) -> RunView:
    """Create the components in the current Gradio column."""
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
        gr.HTML(f'<h2 class="tt-heading">{SHEET_TITLE[engine.domain.has_ground_truth]}</h2>')
        sheet = gr.Image(
            label=SHEET_TITLE[engine.domain.has_ground_truth],
            show_label=False,
            interactive=False,
            type="filepath",
            buttons=["fullscreen"],
            elem_id="run-sheet",
        )
        scores = gr.HTML(elem_id="run-scores")
        download = gr.DownloadButton("Download adapter", interactive=False, elem_id="run-download")
        with gr.Accordion("Push to the Hub", open=False, elem_id="run-hub"):
            with gr.Row():
                repository = gr.Textbox(
                    label="Repository", placeholder="you/my-ducks", min_width=160, elem_id="hub-repository"
                )
                token = gr.Textbox(
                    label="Token",
                    type="password",
                    info="Needs write access. Used once and not stored.",
                    min_width=160,
                    elem_id="hub-token",
                )
            private = gr.Checkbox(
                True, label="Private", info="Only you can see the repository.", elem_id="hub-private"
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
    return RunView(
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
    """Return the titles of the plots: one per teacher, since their losses differ in scale.

    Stable Diffusion comes last: it is not used in every iteration, so its curve appears after the others.
    """
    names = engine.domain.teachers
    teachers = [TEACHERS[name].title for name in names if name != "sd"]
    return [*teachers, OTHERS, GRADIENT, TEACHERS["sd"].title]


def table(log: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Return a plot's data frame with the columns iteration, loss and part.

    Logs of more than MAX_POINTS entries are averaged over windows of equal length.
    """
    import pandas

    width = max(1, -(-len(log) // MAX_POINTS))
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
    if part == "gradient":
        return GRADIENT
    return TEACHERS[name].title if name in TEACHERS else OTHERS


def _short(part: str) -> str:
    """Return the name of a loss term without its teacher, which the plot's title names."""
    name, _, rest = part.partition(" ")
    return rest if name in TEACHERS else part


def panel(state: RunState | None) -> str:
    """Return the progress of a run as HTML: bar, sentence, iterations, speed and time left."""
    if state is None:
        return _panel("idle", "No run yet. Enter prompts and press Start.", 0.0, [])
    name = state.config.name
    done = f"{state.iteration:,} of {state.iterations:,}"
    words = {
        "running": f"{name}: training." if not state.doing else f"{name}: {state.doing}.",
        "pausing": f"{name}: saving.",
        "ending": f"{name}: finishing{f', {state.doing}' if state.doing else ''}.",
        "ready": f"{name} has not started yet. Press Resume.",
        "paused": f"{name} is paused and saved. Press Resume to continue.",
        "stopped": f"{name} was interrupted when the server stopped. Press Resume to continue.",
        "failed": f"{name} failed. {state.sentence}",
        "finished": f"{name} is finished.",
    }[state.state]
    if state.kept and not state.active:
        words = f"{name} is saved. Choose it as the adapter on the Generate tab."
    status = {"running": "running", "pausing": "running", "ending": "running", "failed": "error"}.get(
        state.state, "done" if state.kept or state.state == "finished" else "idle"
    )
    numbers = [("Iterations", done)]
    if state.seconds and state.state == "running":
        numbers += [
            ("Per iteration", format_duration(state.seconds)),
            ("Iterations/s", f"{1 / state.seconds:.2g}"),
        ]
        numbers += [("Time left", format_duration(state.left))]
    return _panel(status, words, state.iteration / max(1, state.iterations), numbers)


def _panel(status: str, words: str, fraction: float, numbers: Sequence[tuple[str, str]]) -> str:
    shown = dict(numbers)
    cells = "".join(
        f"<div><dt>{label}</dt><dd>{text(shown.get(label, '–'))}</dd></div>"
        for label in ("Iterations", "Per iteration", "Iterations/s", "Time left")
    )
    role = "alert" if status == "error" else "status"
    return (
        f'<section class="tt-run" data-state="{status}" aria-label="Run">'
        f'<div class="tt-bar" aria-hidden="true"><b style="width:{round(100 * fraction)}%"></b></div>'
        f'<p class="tt-words" role="{role}" title="{text(words)}">{text(words)}</p>'
        f'<dl class="tt-numbers">{cells}</dl></section>'
    )


def line(words: str, status: str = "idle") -> str:
    """Return one status line as HTML."""
    role = "alert" if status == "error" else "status"
    shown = f'<span class="tt-words">{text(words)}</span>'
    return f'<p class="tt-told" data-state="{status}" role="{role}">{shown}</p>'


def score_table(scores: Mapping[str, Any] | None) -> str:
    """Return the scores before and after training as an HTML table; "" if there are none."""
    if scores is None:
        return ""
    rows = []
    for group, label in {"held out": "held out", "learned": "training"}.items():
        before, after = scores["before"].get(group), scores["after"].get(group)
        if before is None or after is None:
            continue
        for key, measure in measures().items():
            if key == "empty" and not before.get(key) and not after.get(key):
                continue
            if before.get(key) is not None and after.get(key) is not None:
                rows.append(
                    f'<tr><th scope="row" title="{measure.meaning}">{measure.title}, {label}</th>'
                    f"<td>{_format(before[key])}</td><td>{_format(after[key])}</td><td>{measure.meaning}</td></tr>"
                )
    head = '<tr><th scope="col">Score</th><th scope="col">Before</th><th scope="col">After</th><th></th></tr>'
    return (
        f'<table class="tt-scores"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
        if rows
        else ""
    )


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
