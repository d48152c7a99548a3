"""Follow one job of the Generate tab: show its progress and mesh, and save it to the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from triplaneturbo.serving.history_writer import HistoryWriter
from triplaneturbo.serving.jobs import Event, MeshReady, Stopped, Working, follow
from triplaneturbo.ui.generate import comparison, debug_images, downloads, history_tab, panels, result_link
from triplaneturbo.ui.generate.look_suggestions import look_suggestions
from triplaneturbo.ui.generate.updates import Updates, finished

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Sketches
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.file_options import FileOptions
    from triplaneturbo.serving.sessions import Session
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

# Seconds after the GLB of a live result in which a newer request skips its other formats: while somebody
# types, most meshes are seen once and never downloaded.
PATIENCE = 0.7


def follow_job(
    engine: Engine,
    session: Session,
    history: History | None,
    controls: Controls,
    result_view: ResultView,
    request: Request,
    options: FileOptions,
    token: str,
    *,
    number: int,
    sketches: Sketches = "none",
    live: bool = False,
) -> Iterator[Updates]:
    """Submit a request of the page and yield the updates for its events.

    Args:
        token: the secret token that identifies the browser.
        number: the request's number from `Session.enter`.
        sketches: which denoising steps the viewer shows.
        live: whether the page generates while the user types.
    """
    events = follow(
        engine,
        session,
        request,
        sketches=sketches,
        options=options,
        number=number,
        patience=PATIENCE if live else 0,
    )
    writer = HistoryWriter(engine, history, token, options, passing=live)
    with writer.following():
        for event in events:
            complete = isinstance(event, MeshReady) and event.complete
            if isinstance(event, MeshReady) and event.complete:
                request = event.request  # with all defaults filled in
                session.shown = event.request, engine.name
            updates = _updates(engine, event, session, controls, result_view)
            if isinstance(event, MeshReady):
                if writer.keep(event):
                    updates |= history_tab.refresh(writer.shelf, session, result_view)
                # Earlier, the entry may be deleted: by the next request of `live`, or by the user.
                updates |= result_link.offer(writer.link if complete else "", result_view)
                if writer.refused:
                    updates |= {controls.status: panels.status(Stopped(writer.refused))}
            yield updates
            if complete:
                images = debug_images.draw_shown(engine, session, result_view)
                if images:
                    yield images
                slider = comparison.compare(engine, session, result_view, request)
                if slider:
                    yield slider


def _updates(
    engine: Engine, event: Event, session: Session, controls: Controls, result_view: ResultView
) -> Updates:
    """Return the updates of the page for an event of a generation."""
    updates: Updates = {controls.status: panels.status(event)}
    if isinstance(event, (Working, MeshReady)) and event.view is not None:
        updates |= {result_view.view_json: event.view.text}
    if isinstance(event, MeshReady):
        updates |= {result_view.facts: panels.facts(event)}
        updates |= downloads.offer(event.files, result_view)
    if isinstance(event, Stopped) or (isinstance(event, MeshReady) and event.complete):
        updates |= finished(controls)
        updates |= {result_view.refine.start: gr.update(interactive=session.shown is not None)}
        updates |= {result_view.looks: look_suggestions(engine, session)}
    return updates
