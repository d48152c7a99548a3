"""The History tab: results that outlive the page and restarts of the server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.jobs import MeshReady
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import downloads, panels, result_link
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.form import to_fields
from triplaneturbo.ui.generate.look_suggestions import look_suggestions
from triplaneturbo.ui.generate.updates import Updates, refused, visitor

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.history_entry import HistoryEntry
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.user_history import History, UserHistory
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

_OUTDATED = "The server was restarted and the history was reloaded. Click the result once more."


def refresh(results: UserHistory | None, session: Session, result_view: ResultView) -> Updates:
    """Return the updates that list the history with nothing selected; {} without a history."""
    if results is None:
        return {}
    session.chosen = ""
    return {result_view.history.gallery: _gallery(results, session)} | _selection(result_view, None)


def wire(
    engine: Engine,
    page: gr.Blocks,
    sessions: Sessions,
    history: History,
    guard: RequestLimiter,
    controls: Controls,
    result_view: ResultView,
) -> None:
    """Wire the tab, and list the history when the page is opened."""
    view = result_view.history

    def fill(page: gr.Request, token: str, link: str | None) -> Updates:
        session = sessions.of(page.session_hash)
        try:
            results = history.of(token)
        except UserError:  # a client that does not run the page's scripts has no token
            return {view.gallery: gr.skip()}
        listed: Updates = {view.gallery: _gallery(results, session)}
        if link is None:
            return listed
        try:
            return listed | show(session, results.linked(link))
        except UserError as error:
            return listed | refused(controls, error)

    def show(session: Session, entry: HistoryEntry) -> Updates:
        """Return the updates that select and show a result, and offer what can be done with it."""
        session.chosen = entry.id
        request = _shown_request(entry)
        session.shown = None if request is None else (request, entry.model)
        updates = _selection(result_view, entry) | {result_view.facts: panels.facts(_mesh_ready(entry))}
        updates |= downloads.offer(entry.files, result_view) | result_link.offer(entry.link, result_view)
        updates |= {result_view.refine.start: gr.update(interactive=session.shown is not None)}
        updates |= {result_view.looks: look_suggestions(engine, session)}
        if "glb" in entry.files:
            placed = (entry.facts.get("placement") or {}).get("size") is not None
            shown = session.show(entry.files["glb"], int(entry.facts["faces"]), placed=placed)
            assert shown is not None
            updates |= {result_view.view_json: shown.text}
        return updates

    def select(page: gr.Request, token: str, event: gr.SelectData) -> Updates:
        session = sessions.of(page.session_hash)
        try:
            entry = history.of(token).get(session.past[int(event.index)])
        except IndexError:  # the page was opened before the server was restarted
            session.chosen = ""
            updates = _selection(result_view, None) | refused(controls, UserError(_OUTDATED))
            return updates | {view.gallery: _gallery(history.of(token), session)}
        except UserError as error:
            session.chosen = ""
            return _selection(result_view, None) | refused(controls, error)
        return show(session, entry)

    def restore(page: gr.Request, token: str) -> Updates:
        try:
            entry = history.of(token).get(sessions.of(page.session_hash).chosen)
        except UserError as error:
            return refused(controls, error)
        return dict(zip(controls.fields, to_fields(entry.request()), strict=True))

    def change(page: gr.Request, token: str, action: str) -> Updates:
        session = sessions.of(page.session_hash)
        try:
            results = history.of(token)
            entry: HistoryEntry | None = results.get(session.chosen)
            assert entry is not None
            if action == "pin":
                entry = results.pin(entry.id, not entry.pinned)
            else:
                results.delete(entry.id)
                session.chosen, entry = "", None
        except UserError as error:
            return refused(controls, error)
        updates = _selection(result_view, entry) | {view.gallery: _gallery(results, session)}
        if entry is None:  # neither its files nor its link exist any longer
            updates |= downloads.offer({}, result_view) | result_link.offer("", result_view)
        return updates

    def pin(page: gr.Request, token: str) -> Updates:
        return change(page, token, "pin")

    def delete(page: gr.Request, token: str) -> Updates:
        return change(page, token, "delete")

    def pack(page: gr.Request, token: str) -> Updates:
        try:
            guard.admit(**visitor(page))
            session = sessions.of(page.session_hash)
            with session.busy():
                path = history.of(token).zip(session.folder / "history.zip")
        except UserError as error:
            return refused(controls, error)
        return {view.archive: gr.update(value=str(path), interactive=True)}

    selection = [view.selected, *view.buttons.values(), controls.status]
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # Runs in the browser only, so that the token is there before the server answers and Generate is pressed.
    identified = page.load(None, None, view.token, js=read("token.js"), **options)
    offered = [view.gallery, *downloads.outputs(result_view), *result_link.outputs(result_view)]
    shown = [*selection, *offered, result_view.view_json, result_view.facts]
    shown += [result_view.refine.start, result_view.looks]
    link = gr.Textbox(visible="hidden")
    opened = read("opened_link.js", parameter=result_link.PARAMETER)
    identified.then(fill, [view.token, link], shown, js=opened, **options)
    view.gallery.select(select, view.token, shown, **UNQUEUED)
    view.buttons["restore"].click(restore, view.token, [*controls.fields, controls.status], **UNQUEUED)
    view.buttons["pin"].click(pin, view.token, [*selection, view.gallery], **UNQUEUED)
    view.buttons["delete"].click(delete, view.token, [*selection, *offered], **UNQUEUED)
    view.pack.click(pack, view.token, [view.archive, controls.status], **options)


def _gallery(results: UserHistory, session: Session) -> Any:
    entries = [entry for entry in results.entries() if entry.thumbnail is not None]
    session.past = [entry.id for entry in entries]
    items = [(str(entry.thumbnail), panels.history_caption(entry)) for entry in entries]
    return gr.update(value=items, selected_index=None)


def _selection(result_view: ResultView, entry: HistoryEntry | None) -> Updates:
    """Return the updates of the row below the gallery for a selected entry."""
    label = "Unpin" if entry is not None and entry.pinned else "Pin"
    updates: Updates = {result_view.history.selected: panels.selected_entry(entry)}
    for name, button in result_view.history.buttons.items():
        value = {"value": label} if name == "pin" else {}
        updates[button] = gr.update(interactive=entry is not None, **value)
    return updates


def _shown_request(entry: HistoryEntry) -> Request | None:
    """Return the request of an entry's mesh; None if it began with an uploaded file, which is not kept."""
    settings = entry.settings
    if settings.get("upload"):
        return None
    if "refine_steps" not in settings:
        return entry.request()
    return replace(
        RefineRequest.of(entry.request(), settings["refine_steps"]),
        stopped_after=settings.get("stopped_after", 0),
        stop_reason=settings.get("stop_reason", ""),
    )


def _mesh_ready(entry: HistoryEntry) -> MeshReady:
    return MeshReady(entry.request(), entry.files, entry.facts, complete=True)
