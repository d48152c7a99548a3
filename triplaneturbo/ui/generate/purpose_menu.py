"""The Purpose menu: sets the options of the mesh and of its files, and says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from triplaneturbo.request import Request
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.purposes import PURPOSES
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.form import FIELDS, to_fields, to_file_values

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.updates import Updates

# Fields of a Request that any purpose sets: another purpose, or none, restores their defaults.
_FIELDS = tuple(name for name in FIELDS if any(name in purpose.request for purpose in PURPOSES.values()))


def wire(controls: Controls) -> None:
    """Wire the menu."""
    names = dict(zip(FIELDS, controls.fields, strict=True))
    shown = [names[name] for name in _FIELDS]

    def choose(name: str) -> Updates:
        request, options = settings_of(name)
        values = dict(zip(FIELDS, to_fields(request), strict=True))
        updates: Updates = {names[field]: values[field] for field in _FIELDS}
        updates |= dict(zip(controls.placing, to_file_values(options), strict=True))
        summary = PURPOSES[name].summary if name else ""
        note = gr.update(value=panels.purpose(summary), visible=bool(summary))
        return updates | {controls.purpose_note: note}

    # "input" is not triggered when the form is restored, so that changed options are kept.
    controls.purpose.input(
        choose, controls.purpose, [*shown, *controls.placing, controls.purpose_note], **UNQUEUED
    )


def settings_of(name: str) -> tuple[Request, FileOptions]:
    """Return the settings of a purpose; the defaults for ""."""
    request = Request("")
    return PURPOSES[name].apply(request, DEFAULT_FILES) if name else (request, DEFAULT_FILES)
