"""The Purpose menu: sets the options of the mesh and of its files, and says which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.request import Request
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.purposes import PURPOSES
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.form import FIELDS, FILE_FIELDS, to_fields, to_file_values

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.updates import Updates


def wire(controls: Controls) -> None:
    """Wire the menu."""
    components = dict(zip((*FIELDS, *FILE_FIELDS), (*controls.fields, *controls.placing), strict=True))
    components = {name: components[name] for name in fields_of_purposes()}
    followed = gr.Textbox("", visible="hidden")  # the purpose that was chosen before

    def choose(name: str, previous: str, *values: Any) -> Updates:
        current = dict(zip(components, values, strict=True))
        updates: Updates = {
            components[field]: value for field, value in changes(name, previous, current).items()
        }
        summary = PURPOSES[name].summary if name else ""
        note = gr.update(value=panels.purpose(summary), visible=bool(summary))
        return updates | {controls.purpose_note: note, followed: name}

    # "input" is not triggered when the form is restored, so that changed options are kept.
    controls.purpose.input(
        choose,
        [controls.purpose, followed, *components.values()],
        [*components.values(), controls.purpose_note, followed],
        **UNQUEUED,
    )


def fields_of_purposes() -> list[str]:
    """Return the names of the fields that any purpose sets, in the order of the page's controls."""
    names = {name for purpose in PURPOSES for name in control_values(purpose)}
    return [name for name in (*FIELDS, *FILE_FIELDS) if name in names]


def changes(name: str, previous: str, current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the control values that change with the choice of a purpose, by field.

    What the user has set stays, unless the purpose sets it: only values of the previous purpose that are
    unchanged return to their defaults.

    Args:
        name: the chosen purpose; "": none.
        previous: the purpose chosen before it; "": none.
        current: the values of the controls in `fields_of_purposes`.
    """
    defaults = _all_values(Request(""), DEFAULT_FILES)
    undone = {
        field: defaults[field] for field, value in control_values(previous).items() if current[field] == value
    }
    return undone | control_values(name)


def control_values(name: str) -> dict[str, Any]:
    """Return the control values that a purpose sets, by field; {} for ""."""
    if not name:
        return {}
    purpose = PURPOSES[name]
    values = _all_values(*purpose.apply(Request(""), DEFAULT_FILES))
    return {field: values[field] for field in (*purpose.request, *purpose.placement, *purpose.files)}


def _all_values(request: Request, options: FileOptions) -> dict[str, Any]:
    values = (*to_fields(request), *to_file_values(options))
    return dict(zip((*FIELDS, *FILE_FIELDS), values, strict=True))
