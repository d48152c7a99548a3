"""The Generate tab: a prompt and its options at the left, the mesh at the right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.models import ROOT
from triplaneturbo.request import DEFAULT_FACES, RESOLUTIONS, STEP_LIMIT, UNWRAPS, Request, tidy_prompt
from triplaneturbo.ui import panels
from triplaneturbo.ui.form import to_request
from triplaneturbo.ui.jobs import Made, Stopped, follow
from triplaneturbo.world.advice import EXAMPLES, KINDS, advice, summary

if TYPE_CHECKING:
    from triplaneturbo.engine import Engine
    from triplaneturbo.ui.sessions import Sessions

ANY_EXAMPLES = ROOT / "assets" / "examples.txt"
VOCABULARY = "What it can make"
TEXTURE_CHOICES = (512, 1024, 2048, 4096)
# Degrees around and from above: a three-quarter view of the front (+z), slightly from above, as the previews
# have it; the distance shows all of [-1, 1]^3: the viewer's own choice cuts the feet of tall things.
CAMERA = (60, 70, 2.9)
ROLL = "() => Math.floor(Math.random() * 1000000)"


def build(engine: Engine, sessions: Sessions) -> None:
    """Put the tab into the Blocks that is being built."""
    with gr.Row(elem_id="page", equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="controls"):
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="Say what to make: a red mushroom",
                lines=1,
                max_lines=4,
                autofocus=True,
                elem_id="prompt",
            )
            # Only for a model of the world: others read any words.
            reading = gr.HTML(_reading(engine, ""), elem_id="reading") if engine.words else None
            examples = _examples(prompt, engine)
            with gr.Row(elem_id="seed-row"):
                seed = gr.Number(0, label="Seed", elem_id="seed")
                dice = gr.Button("Dice", elem_id="dice", scale=0, min_width=96)
            with gr.Row(elem_id="buttons"):
                start = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
                stop = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="cancel")
            status = gr.HTML(panels.ready(), elem_id="status")
            options = _options(engine)
            if engine.words:
                with gr.Accordion(VOCABULARY, open=False, elem_id="vocabulary"):
                    gr.HTML(panels.vocabulary(engine.words, KINDS, EXAMPLES))
            with gr.Accordion("What this runs on", open=False, elem_id="report"):
                gr.HTML(panels.report(engine.report()))
        with gr.Column(scale=8, min_width=320, elem_id="result"):
            viewer = gr.Model3D(
                label="Mesh",
                show_label=False,
                interactive=False,
                clear_color=(0.0, 0.0, 0.0, 0.0),
                camera_position=CAMERA,
                elem_id="viewer",
            )
            facts = gr.HTML(panels.facts(), elem_id="facts")
            with gr.Row(elem_id="downloads"):
                glb = gr.DownloadButton("Download GLB", interactive=False, elem_id="download-glb")
                obj = gr.DownloadButton("Download OBJ", interactive=False, elem_id="download-obj")

    def start_pressed(page: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        begun: dict[Any, Any] = {
            start: gr.update(interactive=False),
            stop: gr.update(interactive=True),
            status: panels.starting(),
        }
        yield begun if reading is None else begun | {reading: _reading(engine, values[0])}
        over = {start: gr.update(interactive=True), stop: gr.update(interactive=False)}
        try:
            request = to_request(*values)
        except UserError as error:
            yield over | {status: panels.status(Stopped(str(error)))}
            return
        for event in follow(engine, sessions.of(page.session_hash), request):
            shown: dict[Any, Any] = {status: panels.status(event)}
            if isinstance(event, Made):
                shown |= {facts: panels.facts(event)}
                if event.complete:
                    shown |= over | {obj: _download(event, "obj")}
                else:
                    shown |= {viewer: str(event.files["glb"]), glb: _download(event, "glb")}
            elif isinstance(event, Stopped):
                shown |= over
            yield shown

    def stop_pressed(page: gr.Request) -> None:
        sessions.of(page.session_hash).cancel()

    gr.on(
        [start.click, prompt.submit],
        start_pressed,
        [prompt, seed, *options],
        [start, stop, status, viewer, facts, glb, obj, *([] if reading is None else [reading])],
        trigger_mode="always_last",  # an Enter that comes before the last one is over is not lost
        show_progress="hidden",
        concurrency_limit=None,  # the engine has a line of its own
        api_visibility="private",
    )
    stop.click(stop_pressed, queue=False, show_progress="hidden", api_visibility="private")
    dice.click(None, None, seed, js=ROLL, api_visibility="private")
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    if examples is not None:
        examples.click(lambda row: row[0], examples, prompt, **quick)
    if reading is not None:
        # Not while it is typed, where every half word would be unknown; and nobody types an example.
        prompt.blur(lambda words: _reading(engine, words), prompt, reading, **quick)
        if examples is not None:
            examples.click(lambda row: _reading(engine, row[0]), examples, reading, **quick)


def _download(made: Made, name: str) -> Any:
    return gr.update(value=str(made.files[name]), interactive=True)


def _reading(engine: Engine, prompt: str | None) -> str:
    """What a model of the world does not know of a prompt; of one that cannot be, the status line tells."""
    hint = f"It knows {summary()}: see “{VOCABULARY}” below."
    try:
        reading = engine.read(tidy_prompt(prompt or ""))
    except UserError:
        reading = None
    more = f"“{VOCABULARY}” below lists all that it knows."
    return panels.reading(advice(reading, more) if reading is not None else "", hint)


def _examples(prompt: gr.Textbox, engine: Engine) -> gr.Dataset | None:
    """Prompts to click on: the world's own for its models, else one a line of assets/examples.txt, if any."""
    if engine.words:
        lines = list(EXAMPLES)
    elif ANY_EXAMPLES.is_file():
        text = ANY_EXAMPLES.read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        return None
    return gr.Dataset(
        components=[prompt],
        samples=[[line] for line in lines],
        label="Examples",
        layout="gallery",
        elem_id="examples",
    )


def _options(engine: Engine) -> list[Any]:
    """The folded options, in the order of `form.FIELDS` after prompt and seed."""
    config, default = engine.model.config, Request("")
    with gr.Accordion("Options", open=False, elem_id="options"):
        with gr.Row():
            steps = gr.Slider(1, STEP_LIMIT, config.steps, step=1, label="Steps", min_width=195)
            resolution = gr.Slider(*RESOLUTIONS, config.grid_resolution, step=8, label="Grid", min_width=195)
        with gr.Row():
            faces = gr.Number(
                DEFAULT_FACES, label="Most faces", info="0 keeps them all.", min_width=195, elem_id="faces"
            )
            texture = gr.Dropdown(
                list(TEXTURE_CHOICES),
                value=default.texture_size,
                label="Texture",
                info="Pixels a side.",
                min_width=195,
            )
        unwrap = gr.Radio(
            list(UNWRAPS), value=default.unwrap, label="Unwrap", info="none: colours at vertices, no texture."
        )
        normal_map = gr.Checkbox(default.normal_map, label="Normal map")
    return [steps, resolution, faces, texture, unwrap, normal_map]
