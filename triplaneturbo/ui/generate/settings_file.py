"""Restore the settings that a GLB contains: dropped onto the page, or chosen with a button."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.generation_metadata import KEY, LARGEST, GenerationMetadata, parse
from triplaneturbo.mesh.io.metadata_reader import LARGEST_GLB_JSON
from triplaneturbo.mesh.uv.registry import available
from triplaneturbo.request import Request
from triplaneturbo.serving.file_options import FileOptions
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import FLOATERS_LIMIT, TEXTURE_CHOICES, UNQUEUED
from triplaneturbo.ui.generate.form import FILE_FIELDS, to_fields, to_file_values
from triplaneturbo.ui.generate.updates import Updates, refused

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

_NO_SETTINGS = "This file contains no settings of triplaneturbo; choose a GLB that it saved with them."


def wire(engine: Engine, controls: Controls, result_view: ResultView) -> None:
    """Wire the button, and the hidden one for dropped files."""

    def restore(text: str | None) -> Updates:
        if text is None:  # no file was chosen
            return {controls.status: gr.skip()}
        try:
            if not text:
                raise UserError(_NO_SETTINGS)
            metadata = parse(text)
            request, notes = fit(engine, metadata)
        except UserError as error:
            return refused(controls, error)
        updates: Updates = dict(zip(controls.fields, to_fields(request), strict=True))
        placing = dict(zip(FILE_FIELDS, controls.placing, strict=True))
        values = dict(zip(FILE_FIELDS, to_file_values(FileOptions.of(metadata)), strict=True))
        updates |= {placing[name]: values[name] for name in FILE_FIELDS if name != "metadata"}
        return updates | {controls.status: panels.restored(notes)}

    chosen = gr.Textbox(visible="hidden")
    script = read("settings_file.js", key=KEY, max_bytes=LARGEST, max_json=LARGEST_GLB_JSON)
    history = result_view.history
    gr.on(
        [history.settings_file.click, history.dropped.click],
        restore,
        chosen,
        [*controls.fields, *controls.placing, controls.status],
        js=script,
        **UNQUEUED,
    )


def fit(engine: Engine, metadata: GenerationMetadata) -> tuple[Request, list[str]]:
    """Return the request with values that this page can show, and a sentence for each that is replaced."""
    request, notes = metadata.request, []
    if metadata.refinement is not None:
        notes.append(metadata.refinement.note)
    if metadata.model != engine.name:
        notes.append(f"The file was made with the model {metadata.model}, so its mesh was another one.")
    if request.adapter and request.adapter not in engine.adapters():
        notes.append(f"The adapter {request.adapter} is not installed.")
        request = replace(request, adapter="")
    if request.unwrap not in ("none", *available()):
        notes.append(f"The unwrap method {request.unwrap} is not installed.")
        request = replace(request, unwrap=Request.unwrap)
    size = min(TEXTURE_CHOICES, key=lambda choice: abs(choice - request.texture_size))
    if size != request.texture_size:
        notes.append(f"The texture size {request.texture_size} became {size}.")
    if request.floaters > FLOATERS_LIMIT:
        notes.append(f"The floater threshold {request.floaters:g} became {FLOATERS_LIMIT:g}.")
    return replace(
        request,
        texture_size=size,
        floaters=min(request.floaters, FLOATERS_LIMIT),
        steps=request.steps or engine.default_steps(request.adapter),
        resolution=request.resolution or engine.model.config.grid_resolution,
    ), notes
