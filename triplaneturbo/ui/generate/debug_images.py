"""The Pictures tab: wireframe, normals, UV atlas and texture of the last mesh, drawn when the tab is open."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.ui.generate.updates import STREAMED, Updates
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.ui.generate.result import ResultView

CAPTIONS = {"wireframe": "Wireframe", "normals": "Normals", "atlas": "UV atlas", "texture": "Texture"}


def wire(engine: Engine, sessions: Sessions, result_view: ResultView) -> None:
    """Record which tab is open, and draw the images when it is the Pictures tab."""
    for name, tab in result_view.tab.items():

        def select(page: gr.Request, name: str = name) -> Any:
            session = sessions.of(page.session_hash)
            session.tab = name
            return draw_last(engine, session, result_view).get(result_view.pictures, gr.skip())

        tab.select(select, None, result_view.pictures, **STREAMED)


def draw_last(engine: Engine, session: Session, result_view: ResultView) -> Updates:
    """Draw the images of the session's last mesh; {} if the tab is closed or they are already shown."""
    request = session.made
    if session.tab != "pictures" or request is None or session.drawn == request:
        return {}
    try:
        mesh = engine.again(request).mesh  # usually still in the engine's cache
        images = engine.pictures(mesh)
    except (Cancelled, UserError):
        return {}
    if session.made != request:  # a newer mesh draws its own
        return {}
    session.drawn = request
    # Unique names: a browser does not request a URL again that it has cached.
    prefix = secrets.token_hex(8)
    files = {
        write_atomically(session.folder / f"picture-{prefix}-{name}.png", data): name
        for name, data in images.items()
    }
    session.picture(list(files))
    return {result_view.pictures: [(str(path), CAPTIONS[name]) for path, name in files.items()]}
