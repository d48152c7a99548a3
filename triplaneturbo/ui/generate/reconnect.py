"""Reconnection: the page reports a lost server, waits for it, and restores its form after a reload.

Gradio reconnects only while a request is running, and then reloads the page with an empty form. Until then
the progress bar of the running request stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.form import FIELDS

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls

# What the page remembers in addition to the fields of a Request.
EXTRA_FIELDS = (
    "size",
    "up",
    "pivot",
    "unit",
    "metadata",
    "texture_format",
    "max_mb",
    "count",
    "live",
    "forming",
)


def wire(page: gr.Blocks, controls: Controls) -> None:
    """Watch the server from the browser, and keep the form's values in the browser's session storage."""
    inputs = [*controls.fields, *controls.placing, controls.count, controls.live, controls.forming]
    names = [*FIELDS, *EXTRA_FIELDS]
    restore = read("form_restore.js", names=names, back=panels.reconnected())
    watch = read("server_watch.js", lost=panels.disconnected())
    save = read("form_save.js", names=names)
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(None, None, [*inputs, controls.status], js=restore, **options)
    page.load(None, None, None, js=watch, **options)
    gr.on([control.change for control in inputs], None, inputs, None, js=save, **options)
