"""A page that outlives its server: it says that it is gone, waits for it, and comes back as it was.

Gradio waits, too, but only where a request was under way; then it loads the page anew with nothing typed in,
and until then the bar of what was under way stands still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.form import FIELDS

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls

# What else than the fields of a request the page remembers, in the order of `_kept`.
BESIDES = ("size", "up", "pivot", "unit", "count", "live", "forming")


def wire(page: gr.Blocks, asked: Controls) -> None:
    """Have the page watch its server, and remember in the browser what was typed and chosen."""
    kept = [*asked.fields, *asked.placing, asked.count, asked.live, asked.forming]
    names = [*FIELDS, *BESIDES]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(
        None,
        None,
        [*kept, asked.status],
        js=read("form_restore.js", names=names, back=panels.back()),
        **quiet,
    )
    page.load(None, None, None, js=read("server_watch.js", lost=panels.lost()), **quiet)
    gr.on([one.change for one in kept], None, kept, None, js=read("form_save.js", names=names), **quiet)
