"""The history's tab: results that stay when the page is closed and the server is restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.jobs import MeshReady, Stopped
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import QUICK
from triplaneturbo.ui.generate.form import to_fields
from triplaneturbo.ui.generate.updates import Updates, visitor

if TYPE_CHECKING:
    from triplaneturbo.serving.history_entry import HistoryEntry
    from triplaneturbo.serving.limits import Guard
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.user_history import History, UserHistory
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import Pane

_OLD = "The server was started again and has listed the history anew; click the result once more."


def listed(shelf: UserHistory | None, session: Session, pane: Pane) -> Updates:
    """The history with a new result in it, of which none is chosen; no change without a history."""
    if shelf is None:
        return {}
    session.chosen = ""
    return {pane.past.gallery: _listed(shelf, session)} | _shown(pane, None)


def wire(
    page: gr.Blocks, sessions: Sessions, history: History, guard: Guard, asked: Controls, pane: Pane
) -> None:
    """Wire the tab, and fill it when the page is opened."""
    past = pane.past

    def fill(page: gr.Request, token: str) -> Any:
        session = sessions.of(page.session_hash)
        try:
            return _listed(history.of(token), session)
        except UserError:  # a program that opens the page without its scripts
            return gr.skip()

    def choose(page: gr.Request, token: str, event: gr.SelectData) -> Updates:
        session = sessions.of(page.session_hash)
        try:
            session.chosen = session.past[int(event.index)]
            entry = history.of(token).get(session.chosen)
        except IndexError:  # the page is older than the server
            session.chosen = ""
            news = _shown(pane, None) | {asked.status: panels.status(Stopped(_OLD))}
            return news | {past.gallery: _listed(history.of(token), session)}
        except UserError as error:
            session.chosen = ""
            return _shown(pane, None) | {asked.status: panels.status(Stopped(str(error)))}
        facts = entry.facts
        news = _shown(pane, entry) | {pane.facts: panels.facts(_made(entry))}
        news |= {
            button: gr.update(
                value=str(entry.files[name]) if name in entry.files else None, interactive=name in entry.files
            )
            for name, button in pane.downloads.items()
        }
        if "glb" in entry.files:
            placed = (facts.get("placement") or {}).get("size") is not None
            view = session.show(entry.files["glb"], int(facts["faces"]), placed=placed)
            assert view is not None
            news |= {pane.view: view.text}
        return news

    def restore(page: gr.Request, token: str) -> Updates:
        try:
            entry = history.of(token).get(sessions.of(page.session_hash).chosen)
        except UserError as error:
            return {asked.status: panels.status(Stopped(str(error)))}
        return dict(zip(asked.fields, to_fields(entry.request()), strict=True))

    def change(page: gr.Request, token: str, what: str) -> Updates:
        session = sessions.of(page.session_hash)
        try:
            shelf = history.of(token)
            entry: HistoryEntry | None = shelf.get(session.chosen)
            assert entry is not None
            if what == "pin":
                entry = shelf.pin(entry.id, not entry.pinned)
            else:
                shelf.delete(entry.id)
                session.chosen, entry = "", None
        except UserError as error:
            return {asked.status: panels.status(Stopped(str(error)))}
        return _shown(pane, entry) | {past.gallery: _listed(shelf, session)}

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
            return {asked.status: panels.status(Stopped(str(error)))}
        return {past.archive: gr.update(value=str(path), interactive=True)}

    told = [past.chosen, *past.buttons.values(), asked.status]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    # In the browser alone: whoever presses Generate before the server has answered has a token, too.
    known = page.load(None, None, past.token, js=read("token.js"), **quiet)
    known.then(fill, past.token, past.gallery, **quiet)
    seen = [past.gallery, pane.view, pane.facts, *pane.downloads.values()]
    past.gallery.select(choose, past.token, [*told, *seen], **QUICK)
    past.buttons["restore"].click(restore, past.token, [*asked.fields, asked.status], **QUICK)
    past.buttons["pin"].click(pin, past.token, [*told, past.gallery], **QUICK)
    past.buttons["delete"].click(delete, past.token, [*told, past.gallery], **QUICK)
    past.pack.click(
        pack, past.token, [past.archive, asked.status], show_progress="hidden", api_visibility="private"
    )


def _listed(shelf: UserHistory, session: Session) -> Any:
    entries = [entry for entry in shelf.entries() if entry.thumbnail is not None]
    session.past = [entry.id for entry in entries]
    pictures = [(str(entry.thumbnail), panels.past(entry)) for entry in entries]
    return gr.update(value=pictures, selected_index=None)


def _shown(pane: Pane, entry: HistoryEntry | None) -> Updates:
    """What the row below the pictures says, and which of its buttons can be pressed."""
    label = "Unpin" if entry is not None and entry.pinned else "Pin"
    news: Updates = {pane.past.chosen: panels.chosen(entry)}
    for name, button in pane.past.buttons.items():
        news[button] = gr.update(interactive=entry is not None, **({"value": label} if name == "pin" else {}))
    return news


def _made(entry: HistoryEntry) -> MeshReady:
    return MeshReady(entry.request(), entry.files, entry.facts, complete=True)
