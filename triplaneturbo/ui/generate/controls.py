"""Left column of the Generate tab: the prompt and its options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.domains.vocabulary import Vocabulary, advice
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.texture_formats import TEXTURE_FORMATS
from triplaneturbo.mesh.placement import AUTO, PIVOTS, UNIT_CHOICES, UPS
from triplaneturbo.mesh.uv.registry import available
from triplaneturbo.models.catalog import ROOT
from triplaneturbo.request import (
    DEFAULT_FACES,
    LOD_LIMIT,
    RESOLUTIONS,
    SMOOTHING_LIMIT,
    STEP_LIMIT,
    Request,
    tidy_prompt,
)
from triplaneturbo.serving.batch_jobs import LONGEST_SERIES
from triplaneturbo.serving.purposes import PURPOSES
from triplaneturbo.ui.generate import panels

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine

EXAMPLES_FILE = ROOT / "assets" / "examples.txt"
VOCABULARY = "What it can make"
TEXTURE_CHOICES = (512, 1024, 2048, 4096)
FLOATERS_LIMIT = 0.5
ANY_PURPOSE = "Any"
COUNTS = (1, 2, 4, 8)
NO_ADAPTER = "None (base model)"
RANDOM_SEED = "() => Math.floor(Math.random() * 1000000)"
# Options of events whose handler returns at once.
UNQUEUED: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Controls:
    """Components of the control column.

    Attributes:
        fields: inputs of `form.to_request`, in the order of `form.FIELDS`.
        placing: inputs of `form.to_file_options`.
        feedback: words of prompt and look that the model does not know; None if it takes any words.
        live: whether a pause in typing starts a generation, by pressing the hidden button `go`.
        forming: whether the mesh of every denoising step is shown.
        count: number of variants.
        purpose: sets options for a purpose; `purpose_note` says which.
    """

    fields: list[Any]
    placing: list[Any]
    prompt: gr.Textbox
    look: gr.Textbox
    feedback: gr.HTML | None
    live: gr.Checkbox
    forming: gr.Checkbox
    go: gr.Button
    count: gr.Radio
    purpose: gr.Dropdown
    purpose_note: gr.HTML
    start: gr.Button
    stop: gr.Button
    status: gr.HTML
    series: Series


@dataclass(frozen=True)
class Series:
    """Controls of a blend's series: number of meshes, the start button and the download of the ZIP."""

    count: gr.Slider
    start: gr.Button
    download: gr.DownloadButton


def build(engine: Engine) -> Controls:
    """Create the controls in the current Gradio column."""
    prompt = gr.Textbox(
        label="Prompt",
        placeholder="Describe an object, e.g. a red mushroom",
        lines=1,
        max_lines=4,
        autofocus=True,
        elem_id="prompt",
    )
    look, keep_shape = _look()
    vocabulary = engine.domain.vocabulary
    feedback = gr.HTML(prompt_feedback(vocabulary, ""), elem_id="reading") if vocabulary else None
    with gr.Row(elem_id="buttons"):
        start = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
        stop = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="cancel")
    status = gr.HTML(panels.ready(), elem_id="status")
    with gr.Row(elem_id="switches"):
        live = gr.Checkbox(
            False, label="Live", info="Generates when you stop typing.", min_width=140, elem_id="live"
        )
        forming = gr.Checkbox(
            True,
            label="Show progress",
            info="Shows the mesh of each step.",
            min_width=140,
            elem_id="forming",
        )
    # Hidden rather than absent, since live.js clicks it.
    go = gr.Button("Live", visible="hidden", elem_id="live-go")
    with gr.Row(elem_id="seed-row"):
        seed = gr.Number(0, label="Seed", min_width=90, elem_id="seed")
        dice = gr.Button("Random seed", elem_id="dice", scale=0, min_width=96)
    count = gr.Radio(list(COUNTS), value=1, label="Variants (consecutive seeds)", elem_id="count")
    examples = _examples(prompt, engine)
    # The choices are updated when the page is loaded, since adapters may have been added.
    adapter = gr.Dropdown(
        [(NO_ADAPTER, "")], value="", label="Adapter", visible=bool(engine.adapters()), elem_id="adapter"
    )
    mixing, path, series = _mixing()
    purpose = gr.Dropdown(
        [(ANY_PURPOSE, ""), *((purpose.label, name) for name, purpose in PURPOSES.items())],
        value="",
        label="Purpose",
        info="Sets the options below.",
        elem_id="purpose",
    )
    purpose_note = gr.HTML(visible=False, elem_id="purpose-note")
    options, lods, placing = _options(engine)
    if vocabulary is not None:
        with gr.Accordion(VOCABULARY, open=False, elem_id="vocabulary"):
            gr.HTML(panels.vocabulary(vocabulary))
    else:
        with gr.Accordion("Known weaknesses", open=False, elem_id="vocabulary"):
            gr.HTML(panels.weaknesses())
    with gr.Accordion("System", open=False, elem_id="report"):
        gr.HTML(panels.report(engine.report()))

    steps = options[0]
    # The number of steps of the chosen adapter. "change" also follows a restored form, which sets both.
    followed = gr.Number(engine.default_steps(""), label="Steps of the adapter", visible="hidden")
    adapter.input(partial(follow_adapter, engine), [adapter, steps, followed], steps, **UNQUEUED)
    adapter.change(partial(default_steps, engine), adapter, followed, **UNQUEUED)
    dice.click(None, None, seed, js=RANDOM_SEED, api_visibility="private")
    if examples is not None:
        examples.click(lambda row: (row[0], ""), examples, [prompt, look], **UNQUEUED)
    if vocabulary is not None:
        # On blur rather than on input: while typing, every unfinished word would be unknown.
        gr.on(
            [prompt.blur, look.blur],
            partial(prompt_feedback, vocabulary),
            [prompt, look],
            feedback,
            **UNQUEUED,
        )
        if examples is not None:
            examples.click(lambda row: prompt_feedback(vocabulary, row[0]), examples, feedback, **UNQUEUED)
    return Controls(
        fields=[prompt, seed, *options, *mixing, adapter, path, look, keep_shape, lods],
        placing=placing,
        prompt=prompt,
        look=look,
        feedback=feedback,
        live=live,
        forming=forming,
        go=go,
        count=count,
        purpose=purpose,
        purpose_note=purpose_note,
        start=start,
        stop=stop,
        status=status,
        series=series,
    )


def adapter_choices(engine: Engine) -> Any:
    """Return the update of the adapter dropdown: installed adapters and the one that is being trained."""
    choices = [(name, name) for name in engine.adapters()]
    training = engine.learning()
    if training:
        choices.append((f"{training} (training)", training))
    return gr.update(choices=[(NO_ADAPTER, ""), *choices], visible=bool(choices))


def follow_adapter(engine: Engine, adapter: str, steps: Any, followed: Any) -> Any:
    """Return the update of the number of steps after another adapter is chosen.

    Args:
        adapter: the chosen adapter; "": the model's own.
        steps: the number of steps on the page.
        followed: the number of steps of the adapter chosen before; a different one is the user's and stays.
    """
    if steps != followed:
        return gr.skip()
    try:
        return engine.default_steps(adapter)
    except UserError as error:
        gr.Warning(str(error))
        return engine.default_steps("")


def default_steps(engine: Engine, adapter: str) -> int:
    """Return the number of steps of an adapter; the model's if the adapter is missing or its file invalid."""
    try:
        return engine.default_steps(adapter)
    except UserError:
        return engine.default_steps("")


def prompt_feedback(vocabulary: Vocabulary, prompt: str | None, look: str | None = "") -> str:
    """Return HTML that names the words of a prompt and its look that a closed-vocabulary model does not know.

    An invalid prompt gets the general hint: its error is shown in the status line.
    """
    hint = f"The model knows {vocabulary.summary()}: see “{VOCABULARY}” below."
    try:
        texts = [tidy_prompt(prompt or ""), *([tidy_prompt(look)] if look else [])]
    except UserError:
        return panels.feedback("", hint)
    more = f"“{VOCABULARY}” below lists all words it knows."
    sentences = [advice(vocabulary.read(text), more) for text in texts]
    if len(sentences) == 2 and sentences[1]:
        sentences[1] = f"The look: {sentences[1]}"
    return panels.feedback(" ".join(filter(None, sentences)), hint)


def _look() -> tuple[gr.Textbox, gr.Checkbox]:
    """Create the second prompt, for the colours, and the switch that keeps the shape of the first."""
    with gr.Row(elem_id="look-row"):
        look = gr.Textbox(
            label="Look (optional): colours of another prompt",
            placeholder="e.g. a blue mushroom",
            lines=1,
            max_lines=3,
            scale=3,
            min_width=180,
            elem_id="look",
        )
        keep_shape = gr.Checkbox(
            False,
            label="Keep shape",
            info="As without a look.",
            scale=2,
            min_width=130,
            elem_id="keep-shape",
        )
    return look, keep_shape


def _examples(prompt: gr.Textbox, engine: Engine) -> gr.Dataset | None:
    """Create the example prompts: the vocabulary's, or the lines of assets/examples.txt if it exists."""
    vocabulary = engine.domain.vocabulary
    if vocabulary is not None:
        lines = list(vocabulary.examples)
    elif EXAMPLES_FILE.is_file():
        text = EXAMPLES_FILE.read_text(encoding="utf-8")
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
    """Create the variation and blend controls.

    Returns:
        Fields in the order of `form.FIELDS`, the variation path, and the controls of the series.
    """
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
            other = gr.Number(0, label="Variation seed", min_width=120, elem_id="variation-seed")
        path = gr.Textbox(
            label="Earlier variations",
            placeholder="seed:strength, … (set by “More like this”)",
            lines=1,
            max_lines=3,
            elem_id="variation-path",
        )
        blend = gr.Textbox(
            label="Blend with", placeholder="Another prompt", lines=1, max_lines=3, elem_id="blend"
        )
        weight = gr.Slider(
            0,
            1,
            0.5,
            step=0.01,
            label="Blend",
            info="0: only the prompt. 1: only the other prompt.",
            elem_id="weight",
        )
        count = gr.Slider(2, LONGEST_SERIES, 5, step=1, label="Meshes in the series")
        with gr.Row(elem_id="series-row"):
            start = gr.Button("Make series", min_width=130, elem_id="series")
            download = gr.DownloadButton(
                "Download ZIP", interactive=False, min_width=120, elem_id="download-series"
            )
    return [variation, other, blend, weight], path, Series(count, start, download)


def _options(engine: Engine) -> tuple[list[Any], Any, list[Any]]:
    """Create the mesh options.

    Returns:
        Fields in the order of `form.FIELDS`, the levels of detail, and the inputs of `form.to_file_options`.
    """
    config, default = engine.model.config, Request("")
    with gr.Accordion("Mesh", open=False, elem_id="options"):
        with gr.Row():
            steps = gr.Slider(1, STEP_LIMIT, config.steps, step=1, label="Steps", min_width=195)
            resolution = gr.Slider(*RESOLUTIONS, config.grid_resolution, step=8, label="Grid", min_width=195)
        with gr.Row():
            faces = gr.Number(
                DEFAULT_FACES,
                label="Maximum faces",
                info="0: no limit.",
                min_width=195,
                elem_id="faces",
            )
            texture = gr.Dropdown(
                list(TEXTURE_CHOICES),
                value=default.texture_size,
                label="Texture size",
                info="Pixels per side.",
                min_width=195,
            )
        unwrap = gr.Radio(
            [*available(), "none"],
            value=default.unwrap,
            label="UV unwrap",
            info="none: vertex colours instead of a texture.",
        )
        normal_map = gr.Checkbox(default.normal_map, label="Normal map", info="Not available with smoothing.")
        with gr.Row():
            floaters = gr.Slider(
                0,
                FLOATERS_LIMIT,
                default.floaters,
                step=0.01,
                label="Remove floaters below",
                info="Share of the largest part's area.",
                min_width=300,
            )
            smoothing = gr.Slider(0, SMOOTHING_LIMIT, 0, step=1, label="Smoothing", min_width=300)
        watertight = gr.Checkbox(
            default.watertight,
            label="Watertight",
            info="A closed solid for 3D printing.",
            elem_id="watertight",
        )
        lods = gr.Slider(
            1,
            LOD_LIMIT,
            1,
            step=1,
            label="Levels of detail",
            info="Each has half the faces of the previous one. In the GLB.",
            elem_id="lods",
        )
    with gr.Accordion("Size and axes of files", open=False, elem_id="placing"):
        with gr.Row():
            size = gr.Number(
                0,
                label="Longest side",
                info="Metres. 0: as generated.",
                min_width=195,
                elem_id="size",
            )
            up = gr.Radio(
                list(UPS), value="y", label="Up axis", info="GLB files use y, 3MF files z.", min_width=195
            )
        pivot = gr.Radio(list(PIVOTS), value="model", label="Pivot", info="ground: centred below the object.")
        unit = gr.Radio(
            list(UNIT_CHOICES),
            value=AUTO,
            label="Unit",
            info="auto: mm in STL and 3MF, otherwise m. GLB files use m.",
            elem_id="unit",
        )
        metadata = gr.Checkbox(
            True,
            label="Settings in the files",
            info="Prompt, seed, settings and model, to restore them later. Not in STL.",
            elem_id="metadata",
        )
        with gr.Row():
            image = gr.Dropdown(
                list(TEXTURE_FORMATS),
                value=TEXTURE_FORMATS[0],
                label="Texture format",
                info="In GLB and USDZ.",
                min_width=195,
                elem_id="texture-format",
            )
            max_mb = gr.Number(
                0,
                label="Largest GLB",
                info="Megabytes. 0: any.",
                min_width=195,
                elem_id="max-mb",
            )
    options = [steps, resolution, faces, texture, unwrap, normal_map, floaters, smoothing, watertight]
    return options, lods, [size, up, pivot, unit, metadata, image, max_mb]
