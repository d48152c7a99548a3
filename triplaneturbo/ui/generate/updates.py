"""Helpers shared by the Generate tab's event handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.access import is_local
from triplaneturbo.serving.jobs import Stopped
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import prompt_feedback

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.generate.controls import Controls

Updates = dict[Any, Any]  # component -> new value or gr.update(...)
# Options of events whose handler streams progress.
STREAMED: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,  # the engine has its own queue
    "api_visibility": "private",
}


def started(
    engine: Engine, controls: Controls, prompt: str | None, look: str | None, live: bool = False
) -> Updates:
    """Return the updates of the controls before the first event of a generation."""
    updates: Updates = {
        controls.start: gr.update(interactive=live),
        controls.stop: gr.update(interactive=True),
        controls.status: panels.starting(),
    }
    vocabulary = engine.domain.vocabulary
    if controls.feedback is not None and vocabulary is not None:
        updates[controls.feedback] = prompt_feedback(vocabulary, prompt, look)
    return updates


def finished(controls: Controls) -> Updates:
    """Return the updates that re-enable the controls after the last event of a generation."""
    return {controls.start: gr.update(interactive=True), controls.stop: gr.update(interactive=False)}


def refused(controls: Controls, error: UserError) -> Updates:
    """Return the update of the status line that says what the user has to correct."""
    return {controls.status: panels.status(Stopped(str(error)))}


def visitor(page: gr.Request) -> dict[str, Any]:
    """Return session, address and whether the visitor is on this machine, as arguments of `Guard.admit`."""
    address = page.client.host if page.client else None
    return {"session": page.session_hash, "address": address, "local": is_local(page.headers, address)}
