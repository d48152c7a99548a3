"""The Pictures tab: images of the shown mesh and its UV atlas, drawn when the tab is open."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

import gradio as gr

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.serving.refine_request import repeated
from triplaneturbo.ui.generate.updates import STREAMED, Updates, refused, visitor
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

CAPTIONS = {"wireframe": "Wireframe", "normals": "Normals", "atlas": "UV atlas", "texture": "Texture"}


def wire(
    engine: Engine, sessions: Sessions, guard: RequestLimiter, controls: Controls, result_view: ResultView
) -> None:
    """Record which tab is open, and draw the images when it is the Pictures tab."""
    for name, tab in result_view.tab.items():

        def select(page: gr.Request, name: str = name) -> Updates:
            session = sessions.of(page.session_hash)
            session.tab = name
            shown = session.shown
            try:
                if name == "pictures" and shown is not None and session.drawn != shown:
                    # A result of the history is not in the engine's cache.
                    guard.admit(*repeated(shown[0]), **visitor(page))
            except UserError as error:
                return refused(controls, error)
            return draw_shown(engine, session, result_view) or {controls.status: gr.skip()}

        tab.select(select, None, [result_view.pictures, controls.status], **STREAMED)


def draw_shown(engine: Engine, session: Session, result_view: ResultView) -> Updates:
    """Draw the images of the shown result; {} if the tab is closed or they are already shown.

    A result that another model made, or that cannot be made again, has no images.
    """
    shown = session.shown
    if session.tab != "pictures" or session.drawn == shown:
        return {}
    images: dict[str, bytes] = {}
    if shown is not None and shown[1] == engine.name:
        with contextlib.suppress(Cancelled, UserError):
            images = engine.pictures(engine.again(shown[0]).mesh)  # usually still in the engine's cache
    if session.shown != shown:  # a newer mesh draws its own
        return {}
    session.drawn = shown if images else None
    # Unique names: a browser does not request a URL again that it has cached.
    prefix = secrets.token_hex(8)
    files = {
        write_atomically(session.folder / f"picture-{prefix}-{name}.png", data): name
        for name, data in images.items()
    }
    session.picture(list(files))
    return {result_view.pictures: [(str(path), CAPTIONS[name]) for path, name in files.items()]}
