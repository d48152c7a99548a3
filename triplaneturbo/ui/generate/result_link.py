"""The Copy link button: the address that opens the shown result again, in the browser that made it.

The address is the page's with `?result=KEY`. It opens the result only together with the secret token that the
browser keeps, so it gives nobody else access, and its key says nothing about the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView
    from triplaneturbo.ui.generate.updates import Updates

PARAMETER = "result"
LABEL = "Copy this link to the result:"  # where the browser has no clipboard


def wire(controls: Controls, result_view: ResultView) -> None:
    """Wire the button, which asks nothing of the server."""
    link = result_view.link
    script = read("copy_link.js", parameter=PARAMETER, copied=panels.link_copied(), label=LABEL)
    link.start.click(
        None, link.key, controls.status, js=script, show_progress="hidden", api_visibility="private"
    )


def offer(key: str, result_view: ResultView) -> Updates:
    """Return the updates that offer the link of a result by its key; "" for a result that is not saved."""
    return {result_view.link.key: key, result_view.link.start: gr.update(interactive=bool(key))}


def outputs(result_view: ResultView) -> list[Any]:
    """Return the components that `offer` updates."""
    return [result_view.link.key, result_view.link.start]
