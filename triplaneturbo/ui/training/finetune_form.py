"""Left column of the Advanced tab: the prompts and settings of a fine-tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import (
    NEW_ADAPTER,
    OPTIMIZERS,
    RANKS,
    RENDERINGS,
    TUNINGS,
    FinetuneConfig,
)
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.ui.generate.form import whole
from triplaneturbo.ui.training import prompt_list, score_options
from triplaneturbo.ui.training.lengths import LENGTHS, estimates
from triplaneturbo.ui.training.lengths import panel as lengths

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.training.prompt_list import PromptSplit

# What a run can start from besides the adapters.
STARTS = [("Base model", ""), ("New adapter", NEW_ADAPTER)]
HELD_OUT_SHARE = 0.2
# Settings of a FinetuneConfig, in the order of their controls.
FIELDS = (
    "iterations",
    "batch",
    "learning_rate",
    "optimizer",
    "teachers",
    "renderings",
    "tuning",
    "rank",
    "steps",
    "scored_steps",
    "preview_every",
    "seed",
    "score",
    *score_options.USED_BY,
)
_WHOLE = (
    "iterations", "batch", "rank", "steps", "scored_steps", "preview_every", "seed", *score_options.WHOLE,
)  # fmt: skip


@dataclass(frozen=True)
class FinetuneForm:
    """The components.

    Attributes:
        prompts: one prompt or template per line.
        upload: button that uploads a list.
        upload_result: hidden; "uploaded" after an upload, an error message, or "" if no file was chosen.
        column: column of an uploaded table; visible only if there are several.
        summary: numbers of training, held-out and skipped prompts.
        start: adapter to continue from; "" starts from the base model, "nothing" from a new adapter.
        preset: training length.
        estimate: time and memory of each preset.
        share: share of the prompts that is held out.
        settings: by their names in FinetuneConfig.
        begin: button that starts the run.
        status: error message, if any.
    """

    prompts: gr.Textbox
    upload: gr.Button
    upload_result: gr.Textbox
    column: gr.Dropdown
    summary: gr.HTML
    name: gr.Textbox
    start: gr.Dropdown
    preset: gr.Radio
    estimate: gr.HTML
    share: gr.Slider
    settings: dict[str, Any]
    begin: gr.Button
    status: gr.HTML


def build(engine: Engine) -> FinetuneForm:
    """Create the form in the current Gradio column."""
    prompts = gr.Textbox(
        label="Prompts (one per line)",
        placeholder="a red duck\na {blue|green} cup\na tall {thing}\n{thing: cactus, tower}",
        lines=9,
        max_lines=9,
        elem_id="train-prompts",
    )
    with gr.Row(elem_id="train-lists"):
        upload = gr.Button("Upload list", min_width=160, scale=0, elem_id="train-upload")
        column = gr.Dropdown(
            [], label="Column", container=False, visible=False, min_width=140, elem_id="train-column"
        )
    upload_result = gr.Textbox(visible="hidden", elem_id="train-told")
    summary = gr.HTML(prompt_list.panel(None), elem_id="train-counted")
    with gr.Accordion("Templates and files", open=False, elem_id="train-help"):
        gr.Markdown(prompt_list.TEMPLATES)
        gr.Markdown(
            "File types: .txt (one prompt per line), .csv, .json and .jsonl. For a table, choose the column."
        )
    with gr.Row(elem_id="train-naming"):
        name = gr.Textbox(
            label="Name",
            placeholder="my-ducks",
            info="a-z, 0-9, - and _",
            max_length=64,
            min_width=180,
            elem_id="train-name",
        )
        start = gr.Dropdown(
            STARTS,
            value="",
            label="Start from",
            info="Or continue from an adapter.",
            min_width=180,
            elem_id="train-start",
        )
    preset = gr.Radio(
        [(label, name) for name, label in LENGTHS.items()],
        value="try",
        label="Training length",
        elem_id="train-preset",
    )
    estimate = gr.HTML(lengths({}), elem_id="train-estimate")
    with gr.Row(elem_id="train-buttons"):
        begin = gr.Button("Start", variant="primary", elem_id="train-begin")
    status = gr.HTML(elem_id="train-status")
    share, settings = _settings(engine)
    return FinetuneForm(
        prompts,
        upload,
        upload_result,
        column,
        summary,
        name,
        start,
        preset,
        estimate,
        share,
        settings,
        begin,
        status,
    )


def _settings(engine: Engine) -> tuple[gr.Slider, dict[str, Any]]:
    default = {**FinetuneConfig("x").__dict__, **engine.domain.presets["try"]}
    teachers = engine.domain.teachers
    controls: dict[str, Any] = {}
    with gr.Accordion("Settings", open=False, elem_id="train-settings"):
        share = gr.Slider(
            0,
            0.9,
            HELD_OUT_SHARE,
            step=0.05,
            label="Held out",
            info="Share of prompts used only for evaluation.",
        )
        controls["teachers"] = gr.CheckboxGroup(
            [(TEACHERS[name].label, name) for name in teachers], value=list(teachers), label="Teachers"
        )
        with gr.Row():
            controls["iterations"] = gr.Number(
                default["iterations"], label="Iterations", info="Optimiser steps.", min_width=120
            )
            controls["batch"] = gr.Number(
                default["batch"], label="Batch size", info="Prompts per iteration.", min_width=120
            )
        with gr.Row():
            controls["learning_rate"] = gr.Number(
                default["learning_rate"], label="Learning rate", min_width=120
            )
            controls["optimizer"] = gr.Dropdown(
                list(OPTIMIZERS), value=default["optimizer"], label="Optimiser", min_width=120
            )
        controls["renderings"] = gr.CheckboxGroup(
            list(RENDERINGS), value=list(RENDERINGS), label="Renderings", info="What the teachers see."
        )
        with gr.Row():
            controls["tuning"] = gr.Dropdown(
                list(TUNINGS),
                value=default["tuning"],
                label="Tuning",
                info="Only peta can continue.",
                min_width=120,
            )
            controls["rank"] = gr.Dropdown(
                [("default", 0), *((str(rank), rank) for rank in RANKS if rank)],
                value=default["rank"],
                label="Rank",
                info="A new rank starts over.",
                min_width=120,
            )
        with gr.Row():
            controls["steps"] = gr.Number(0, label="Denoising steps", info="0: model default.", min_width=120)
            controls["scored_steps"] = gr.Number(
                default["scored_steps"], label="Scored steps", info="0: all.", min_width=120
            )
        with gr.Row():
            controls["preview_every"] = gr.Number(
                default["preview_every"], label="Preview interval", info="Iterations. 0: none.", min_width=120
            )
            controls["seed"] = gr.Number(0, label="Seed", info="Of the whole run.", min_width=120)
        controls |= score_options.build()
    return share, {name: controls[name] for name in FIELDS}


def preset_values(engine: Engine, preset: str) -> list[Any]:
    """Return the updates of the settings for a preset, in the order of FIELDS."""
    chosen = engine.domain.presets.get(preset, {})
    return [chosen.get(name, gr.skip()) for name in FIELDS]


def estimate_panel(engine: Engine, prompts: PromptSplit | None, *settings: Any) -> str:
    """Return the estimates for a prompt list and the current settings as HTML."""
    values = {name: whole(value) for name, value in zip(FIELDS, settings, strict=True)}
    learned, held_out = (prompts.learned, prompts.held_out) if prompts is not None else ((), ())
    return lengths(estimates(engine, learned, held_out, values) if learned else {})


def to_config(prompts: PromptSplit, name: Any, start: Any, *settings: Any) -> FinetuneConfig:
    """Build the configuration of a run from control values.

    Raises:
        UserError: a field is blank or no teacher is chosen. Other invalid values are reported when the run
            starts.
    """
    values = score_options.used_values(dict(zip(FIELDS, settings, strict=True)))
    for field, value in values.items():
        if value is None:
            raise UserError(
                f"The field {field.replace('_', ' ')!r} is blank. Fill it, or choose a training length again."
            )
    for field in values.keys() & set(_WHOLE):
        values[field] = whole(values[field])
    if not values["teachers"]:
        raise UserError("No teacher is selected: choose at least one.")
    values |= {field: tuple(values[field]) for field in ("teachers", "renderings")}
    return FinetuneConfig(
        (name or "").strip(), prompts.learned, prompts.held_out, start=start or "", **values
    )
