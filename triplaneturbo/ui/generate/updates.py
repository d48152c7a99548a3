"""What the page's controls show while something is made, and how such events are wired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.serving.access import is_local
from triplaneturbo.ui.generate import controls, panels

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.generate.controls import Controls

Updates = dict[Any, Any]
FOLLOWED: dict[str, Any] = {
    "show_progress": "hidden",
    "concurrency_limit": None,  # the engine has a line of its own
    "api_visibility": "private",
}


def started(engine: Engine, asked: Controls, prompt: str | None, live: bool = False) -> Updates:
    """What the page shows before the first event."""
    news: Updates = {
        asked.start: gr.update(interactive=live),
        asked.stop: gr.update(interactive=True),
        asked.status: panels.starting(),
    }
    return news if asked.reading is None else news | {asked.reading: controls.read(engine, prompt)}


def finished(asked: Controls) -> Updates:
    """What is as it was before, after the last event."""
    return {asked.start: gr.update(interactive=True), asked.stop: gr.update(interactive=False)}


def visitor(page: gr.Request) -> dict[str, Any]:
    """Who asks, as `Guard.admit` takes it: session, address, and whether it is at this machine."""
    address = page.client.host if page.client else None
    return {"session": page.session_hash, "address": address, "local": is_local(page.headers, address)}
