"""The tab with pictures of how the last mesh is made; they are drawn only while it is looked at."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.ui.generate.updates import FOLLOWED, Updates
from triplaneturbo.utils.atomic_files import write_whole

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.ui.generate.result import Pane

CAPTIONS = {"wireframe": "Wireframe", "normals": "Normals", "atlas": "UV atlas", "texture": "Texture"}


def wire(engine: Engine, sessions: Sessions, pane: Pane) -> None:
    """Note which tab is looked at, and draw where it is this one."""
    for name, tab in pane.tab.items():

        def select(page: gr.Request, name: str = name) -> Any:
            session = sessions.of(page.session_hash)
            session.tab = name
            return of_last(engine, session, pane).get(pane.pictures, gr.skip())

        tab.select(select, None, pane.pictures, **FOLLOWED)


def of_last(engine: Engine, session: Session, pane: Pane) -> Updates:
    """The pictures of the session's last mesh, if the tab is looked at and they are not there yet."""
    request = session.made
    if session.tab != "pictures" or request is None or session.drawn == request:
        return {}
    try:
        mesh = engine.submit(request).result().mesh  # it is remembered, unless others came after it
        drawn = engine.pictures(mesh)
    except (Cancelled, UserError):
        return {}
    if session.made != request:  # another was made meanwhile, and has its own
        return {}
    session.drawn = request
    # Other names each time: a browser does not ask again for an address that it knows.
    mark = secrets.token_hex(8)
    files = {
        write_whole(session.folder / f"picture-{mark}-{name}.png", data): name for name, data in drawn.items()
    }
    session.picture(list(files))
    return {pane.pictures: [(str(path), CAPTIONS[name]) for path, name in files.items()]}
