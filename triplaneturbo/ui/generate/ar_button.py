"""The AR button: on a phone it opens the mesh in augmented reality, elsewhere it shows a QR code for one.

The code is made here, and nothing is requested from other servers.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.access import is_loopback
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.updates import Updates, refused

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

LONGEST_LINK = 1000


def wire(controls: Controls, result_view: ResultView) -> None:
    """Wire the button."""

    def show(link: str | None) -> Updates:
        if link is None:  # this device shows the object itself
            return {controls.status: gr.skip()}
        try:
            code = gr.update(value=qr_code(link), visible=True)
            return {result_view.ar.code: code}
        except UserError as error:
            hidden: Any = gr.update(visible=False)
            return refused(controls, error) | {result_view.ar.code: hidden}

    # The script gets the path and replaces it with the link.
    result_view.ar.start.click(
        show,
        result_view.ar.stem,
        [controls.status, result_view.ar.code],
        js=read("ar_button.js"),
        **UNQUEUED,
    )


def qr_code(link: str) -> str:
    """Return HTML with a QR code of a link to this server, and the link.

    Raises:
        UserError: there is no mesh, or phones cannot reach the address.
    """
    if not link:
        raise UserError("There is no mesh to show yet; generate one first.")
    parts = _parsed(link)
    if parts is None or len(link) > LONGEST_LINK:
        raise UserError("This page has no address that a QR code can hold; open it by http or https.")
    if is_loopback(parts.hostname or ""):
        raise UserError(
            f"Phones cannot reach {parts.hostname}; start the server with --host 0.0.0.0 and open the page at"
            " the address that it prints for other machines."
        )
    import segno

    # Without a size, so that the style sheet scales it instead of cutting it off.
    picture = segno.make(link, error="m").svg_inline(omitsize=True, dark="#000", light="#fff", border=4)
    words = "Scan this code with a phone to see the object in your room."
    if parts.scheme == "http":
        words += " Android phones need https for it."
    return f'<div class="tt-qr">{picture}<p>{panels.text(words)}</p></div>'


def _parsed(link: str) -> urllib.parse.SplitResult | None:
    """Return the parts of a link; None if it is no address of a web page."""
    try:
        parts = urllib.parse.urlsplit(link)
        valid = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s<>\"']", link)
        return parts if valid else None
    except ValueError:
        return None
