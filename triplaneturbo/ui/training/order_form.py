"""The left side of the Advanced tab: what is to be learned, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import (
    OPTIMIZERS,
    PRESETS,
    RANKS,
    RENDERINGS,
    TEACHERS,
    TUNINGS,
    FinetuneConfig,
)
from triplaneturbo.ui.generate.form import whole
from triplaneturbo.ui.training import prompt_list
from triplaneturbo.ui.training.lengths import LENGTHS, estimates
from triplaneturbo.ui.training.lengths import panel as lengths

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.training.prompt_list import Counted

NEW = "the model's own"
SHARE = 0.2  # held out
# The order of the settings' controls, by the names that an Order has for them.
FIELDS = (
    "iterations",
    "batch",
    "rate",
    "optimizer",
    "teachers",
    "renderings",
    "tuning",
    "rank",
    "steps",
    "scored",
    "preview_every",
    "seed",
)
_WHOLE = ("iterations", "batch", "rank", "steps", "scored", "preview_every", "seed")
_ASKED = {
    "rgb": "colours of the world",
    "geometry": "shapes of the world",
    "sd": "pictures of its base",
    "mvdream": "MVDream",
    "richdreamer": "RichDreamer",
}


@dataclass(frozen=True)
class OrderForm:
    """The components.

    Attributes:
        prompts: the list, one a line.
        upload: sends a file; `told` holds what came of that.
        column: of an uploaded table; seen only where there are several.
        counted: what is learned and what is left out.
        start: the adapter that is gone on with, "" for none.
        preset: how long it takes; `estimate` says how long that is.
        settings: by the names that an Order has for them.
        begin: the button.
        status: what is wrong with the order, if anything.
    """

    prompts: gr.Textbox
    upload: gr.Button
    told: gr.Textbox
    column: gr.Dropdown
    counted: gr.HTML
    name: gr.Textbox
    start: gr.Dropdown
    preset: gr.Radio
    estimate: gr.HTML
    share: gr.Slider
    settings: dict[str, Any]
    begin: gr.Button
    status: gr.HTML


def build(engine: Engine) -> OrderForm:
    """Put the controls into the column that is being built."""
    prompts = gr.Textbox(
        label="Prompts, one a line",
        placeholder="a red duck\na {blue|green} cup\na tall {thing}\n{thing: cactus, tower}",
        lines=9,
        max_lines=9,
        elem_id="train-prompts",
    )
    with gr.Row(elem_id="train-lists"):
        upload = gr.Button("Upload a list", min_width=160, scale=0, elem_id="train-upload")
        column = gr.Dropdown(
            [], label="Column", container=False, visible=False, min_width=140, elem_id="train-column"
        )
    told = gr.Textbox(visible="hidden", elem_id="train-told")
    counted = gr.HTML(prompt_list.panel(None), elem_id="train-counted")
    with gr.Accordion("Templates and files", open=False, elem_id="train-help"):
        gr.Markdown(prompt_list.TEMPLATES)
        gr.Markdown(
            "Files: .txt with a prompt a line, .csv, .json and .jsonl; of a table the column is chosen."
        )
    with gr.Row(elem_id="train-naming"):
        name = gr.Textbox(
            label="Its name",
            placeholder="my-ducks",
            info="a-z, 0-9, - and _",
            max_length=64,
            min_width=180,
            elem_id="train-name",
        )
        start = gr.Dropdown(
            [(NEW, "")],
            value="",
            label="Begin with",
            info="Or go on with one.",
            min_width=180,
            elem_id="train-start",
        )
    preset = gr.Radio(
        [(label, name) for name, label in LENGTHS.items()],
        value="try",
        label="How long",
        elem_id="train-preset",
    )
    estimate = gr.HTML(lengths({}), elem_id="train-estimate")
    with gr.Row(elem_id="train-buttons"):
        begin = gr.Button("Start", variant="primary", elem_id="train-begin")
    status = gr.HTML(elem_id="train-status")
    share, settings = _settings(engine)
    return OrderForm(
        prompts, upload, told, column, counted, name, start, preset, estimate, share, settings, begin, status
    )


def _settings(engine: Engine) -> tuple[gr.Slider, dict[str, Any]]:
    world = engine.model.config.world
    default = {**FinetuneConfig("x").__dict__, **PRESETS["try"](world)}
    teachers = TEACHERS[world]
    made: dict[str, Any] = {}
    with gr.Accordion("Settings", open=False, elem_id="train-settings"):
        share = gr.Slider(
            0, 0.9, SHARE, step=0.05, label="Held out", info="The share of the prompts that only judge."
        )
        made["teachers"] = gr.CheckboxGroup(
            [(_ASKED[name], name) for name in teachers], value=list(teachers), label="Teachers"
        )
        with gr.Row():
            made["iterations"] = gr.Number(
                default["iterations"], label="Iterations", info="Optimiser steps.", min_width=120
            )
            made["batch"] = gr.Number(default["batch"], label="Batch", info="Prompts at once.", min_width=120)
        with gr.Row():
            made["rate"] = gr.Number(default["rate"], label="Learning rate", min_width=120)
            made["optimizer"] = gr.Dropdown(
                list(OPTIMIZERS), value=default["optimizer"], label="Optimiser", min_width=120
            )
        made["renderings"] = gr.CheckboxGroup(
            list(RENDERINGS), value=list(RENDERINGS), label="Renderings", info="What the teachers look at."
        )
        with gr.Row():
            made["tuning"] = gr.Dropdown(
                list(TUNINGS),
                value=default["tuning"],
                label="What learns",
                info="Only peta goes on.",
                min_width=120,
            )
            made["rank"] = gr.Dropdown(
                [("its own", 0), *((str(rank), rank) for rank in RANKS if rank)],
                value=default["rank"],
                label="Rank",
                info="Another begins anew.",
                min_width=120,
            )
        with gr.Row():
            made["steps"] = gr.Number(0, label="Denoising steps", info="0: the model's own.", min_width=120)
            made["scored"] = gr.Number(
                default["scored"], label="Scored steps", info="0: all of them.", min_width=120
            )
        with gr.Row():
            made["preview_every"] = gr.Number(
                default["preview_every"], label="Previews", info="Every so many; 0: none.", min_width=120
            )
            made["seed"] = gr.Number(0, label="Seed", info="Of all chance.", min_width=120)
    return share, {name: made[name] for name in FIELDS}


def preset_values(engine: Engine, preset: str) -> list[Any]:
    """What the settings' controls show for a preset, in the order of FIELDS; what else there is stays."""
    chosen = PRESETS[preset](engine.model.config.world) if preset in PRESETS else {}
    return [chosen.get(name, gr.skip()) for name in FIELDS]


def told_lengths(engine: Engine, counted: Counted | None, *settings: Any) -> str:
    """How long the presets and the settings would learn the prompts, as the page shows it."""
    values = {name: whole(value) for name, value in zip(FIELDS, settings, strict=True)}
    learned, held_out = (counted.learned, counted.held_out) if counted is not None else ((), ())
    return lengths(estimates(engine, learned, held_out, values) if learned else {})


def to_order(counted: Counted, name: Any, start: Any, *settings: Any) -> FinetuneConfig:
    """The Order that the controls' values say.

    Raises:
        UserError: no teacher is left, or a field is blank; what else cannot be is found when it is begun.
    """
    values = dict(zip(FIELDS, settings, strict=True))
    for field in FIELDS:
        if values[field] is None:
            raise UserError(
                f"The field for {field.replace('_', ' ')} is blank; choose a preset again, or fill it."
            )
    for field in _WHOLE:
        values[field] = whole(values[field])
    if not values["teachers"]:
        raise UserError("No teacher is left: choose at least one.")
    values |= {field: tuple(values[field]) for field in ("teachers", "renderings")}
    return FinetuneConfig(
        (name or "").strip(), counted.learned, counted.held_out, start=start or "", **values
    )
