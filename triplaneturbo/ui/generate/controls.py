"""The left side of the Generate tab: what is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.placement import AUTO, PIVOTS, UNIT_CHOICES, UPS
from triplaneturbo.models.catalog import ROOT
from triplaneturbo.request import (
    DEFAULT_FACES,
    RESOLUTIONS,
    SMOOTHING_LIMIT,
    STEP_LIMIT,
    UNWRAPS,
    Request,
    tidy_prompt,
)
from triplaneturbo.serving.batch_jobs import LONGEST_SERIES
from triplaneturbo.toyworld.captions.advice import EXAMPLES, KINDS, advice, summary
from triplaneturbo.ui.generate import panels

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine

ANY_EXAMPLES = ROOT / "assets" / "examples.txt"
VOCABULARY = "What it can make"
TEXTURE_CHOICES = (512, 1024, 2048, 4096)
COUNTS = (1, 2, 4, 8)
OWN = "the model's own"
ROLL = "() => Math.floor(Math.random() * 1000000)"
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Controls:
    """The components.

    Attributes:
        fields: what becomes a Request, in the order of `form.FIELDS`.
        placing: what becomes a Placement, as `form.to_placement` takes it.
        reading: what the model does not know of the prompt; None where it reads any words.
        live: whether a pause in typing begins a generation; `go` is what it presses.
        forming: whether every step is shown.
        count: how many seeds are made at once.
    """

    fields: list[Any]
    placing: list[Any]
    prompt: gr.Textbox
    reading: gr.HTML | None
    live: gr.Checkbox
    forming: gr.Checkbox
    go: gr.Button
    count: gr.Radio
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    series: Series


@dataclass(frozen=True)
class Series:
    """A blend as a series of meshes: how many, begin, and the zip that comes of it."""

    count: gr.Slider
    start: gr.Button
    download: gr.DownloadButton


def build(engine: Engine) -> Controls:
    """Put the controls into the column that is being built."""
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="Say what to make: a red mushroom",
        lines=1,
        max_lines=4,
        autofocus=True,
        elem_id="prompt",
    )
    # Only for a model of the world: others read any words.
    reading = gr.HTML(read(engine, ""), elem_id="reading") if engine.words else None
    with gr.Row(elem_id="buttons"):
        start = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
        stop = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="cancel")
    status = gr.HTML(panels.ready(), elem_id="status")
    with gr.Row(elem_id="switches"):
        live = gr.Checkbox(
            False, label="Live", info="A pause in typing is enough.", min_width=140, elem_id="live"
        )
        forming = gr.Checkbox(
            True, label="Show it forming", info="Each step, as it comes.", min_width=140, elem_id="forming"
        )
    # Hidden, and not left out: the page presses it.
    go = gr.Button("Live", visible="hidden", elem_id="live-go")
    with gr.Row(elem_id="seed-row"):
        seed = gr.Number(0, label="Seed", min_width=90, elem_id="seed")
        dice = gr.Button("Dice", elem_id="dice", scale=0, min_width=96)
    count = gr.Radio(list(COUNTS), value=1, label="Variants, seeds from this one on", elem_id="count")
    examples = _examples(prompt, engine)
    # Adapters come when the page is loaded, as they may be new since the server was started.
    adapter = gr.Dropdown(
        [(OWN, "")], value="", label="Adapter", visible=bool(engine.adapters()), elem_id="adapter"
    )
    mixing, path, series = _mixing()
    options, placing = _options(engine)
    if engine.words:
        with gr.Accordion(VOCABULARY, open=False, elem_id="vocabulary"):
            gr.HTML(panels.vocabulary(engine.words, KINDS, EXAMPLES))
    else:
        with gr.Accordion("What it does badly", open=False, elem_id="vocabulary"):
            gr.HTML(panels.limits())
    with gr.Accordion("What this runs on", open=False, elem_id="report"):
        gr.HTML(panels.report(engine.report()))

    dice.click(None, None, seed, js=ROLL, api_visibility="private")
    if examples is not None:
        examples.click(lambda row: row[0], examples, prompt, **QUICK)
    if reading is not None:
        # Not while it is typed, where every half word would be unknown; and nobody types an example.
        prompt.blur(lambda words: read(engine, words), prompt, reading, **QUICK)
        if examples is not None:
            examples.click(lambda row: read(engine, row[0]), examples, reading, **QUICK)
    return Controls(
        fields=[prompt, seed, *options, *mixing, adapter, path],
        placing=placing,
        prompt=prompt,
        reading=reading,
        live=live,
        forming=forming,
        go=go,
        count=count,
        start=start,
        stop=stop,
        status=status,
        series=series,
    )


def known_adapters(engine: Engine) -> Any:
    """What the choice of adapters shows."""
    choices = [(name, name) for name in engine.adapters()]
    learning = engine.learning()
    if learning:
        choices.append((f"{learning}, as it learns", learning))
    return gr.update(choices=[(OWN, ""), *choices], visible=bool(choices))


def read(engine: Engine, prompt: str | None) -> str:
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


def _mixing() -> tuple[list[Any], Any, Series]:
    """Variation and blend, in the order of `form.FIELDS`; the variation's path; the series of a blend."""
    with gr.Accordion("Variation and blend", open=False, elem_id="mixing"):
        with gr.Row():
            variation = gr.Slider(
                0,
                1,
                0,
                step=0.01,
                label="Variation",
                min_width=195,
                elem_id="variation",
            )
            other = gr.Number(0, label="Variation's seed", min_width=120, elem_id="variation-seed")
        path = gr.Textbox(
            label="Variations before it",
            placeholder="seed:strength, as “More like this” notes them",
            lines=1,
            max_lines=3,
            elem_id="variation-path",
        )
        blend = gr.Textbox(
            label="Blend with", placeholder="another prompt", lines=1, max_lines=3, elem_id="blend"
        )
        weight = gr.Slider(
            0, 1, 0.5, step=0.01, label="Blend", info="0: the prompt, 1: the other one.", elem_id="weight"
        )
        count = gr.Slider(2, LONGEST_SERIES, 5, step=1, label="Meshes in the series")
        with gr.Row(elem_id="series-row"):
            start = gr.Button("Make the series", min_width=130, elem_id="series")
            download = gr.DownloadButton(
                "Download ZIP", interactive=False, min_width=120, elem_id="download-series"
            )
    return [variation, other, blend, weight], path, Series(count, start, download)


def _options(engine: Engine) -> tuple[list[Any], list[Any]]:
    """The mesh's options, in the order of `form.FIELDS`; and how it stands in its files."""
    config, default = engine.model.config, Request("")
    with gr.Accordion("Mesh", open=False, elem_id="options"):
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
        normal_map = gr.Checkbox(default.normal_map, label="Normal map", info="Not with smoothing.")
        with gr.Row():
            floaters = gr.Slider(
                0,
                0.5,
                default.floaters,
                step=0.01,
                label="Drop floaters below",
                min_width=195,
            )
            smoothing = gr.Slider(0, SMOOTHING_LIMIT, 0, step=1, label="Smoothing", min_width=195)
        watertight = gr.Checkbox(
            default.watertight, label="Watertight", info="A closed solid, for printing.", elem_id="watertight"
        )
    with gr.Accordion("Size and axes of the files", open=False, elem_id="placing"):
        with gr.Row():
            size = gr.Number(
                0,
                label="Size",
                info="Metres; 0: its own.",
                min_width=195,
                elem_id="size",
            )
            up = gr.Radio(list(UPS), value="y", label="Up axis", info="A GLB always has y.", min_width=195)
        pivot = gr.Radio(
            list(PIVOTS), value="model", label="Pivot", info="ground: below it, so that it stands at 0."
        )
        unit = gr.Radio(
            list(UNIT_CHOICES),
            value=AUTO,
            label="Unit of the numbers",
            info="auto: mm in STL, as slicers expect; m elsewhere. A GLB always has m.",
            elem_id="unit",
        )
    return [steps, resolution, faces, texture, unwrap, normal_map, floaters, smoothing, watertight], [
        size,
        up,
        pivot,
        unit,
    ]
