"""Suggested looks for the result that the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.serving.refine_request import RefineRequest

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session


def look_suggestions(engine: Engine, session: Session) -> Any:
    """Return the update of the row of looks; it stays empty for a refined result, which keeps its colours."""
    looks: tuple[str, ...] = ()
    if session.shown is not None:
        request, model = session.shown
        if model == engine.name and not isinstance(request, RefineRequest):
            looks = tuple(look for look in engine.domain.looks(request.prompt) if look != request.look)
    return gr.update(samples=[[look] for look in looks])
