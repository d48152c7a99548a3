"""The page as a whole, and how it is to be served.

    page = build(engine, folder)
    page.launch(server_name="127.0.0.1", server_port=7860, **SERVING, **look())

This floor imports no torch: the engine gives what is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.models import ROOT
from triplaneturbo.ui import endpoint, generate, panels
from triplaneturbo.ui.scripts import ON_LOAD
from triplaneturbo.ui.sessions import Sessions
from triplaneturbo.ui.theme import CSS, theme

if TYPE_CHECKING:
    from triplaneturbo.engine import Engine

# Nothing is shared, counted, uploaded or kept in the browser, and no other server is asked for anything.
SERVING: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "ssr_mode": False,
    "mcp_server": False,
    "pwa": False,
    "enable_monitoring": False,
    "run_history": False,
    "footer_links": [],
    "max_file_size": 1,
}


def look() -> dict[str, Any]:
    """What `launch` needs to know of the page's looks."""
    return {"theme": theme(), "css": CSS, "favicon_path": str(ROOT / "assets" / "favicon.svg")}


def build(engine: Engine, folder: Path) -> gr.Blocks:
    """The page for an engine; results lie in `folder`, the only one that files are served from.

    Whoever calls it deletes the folder when the page is closed.
    """
    folder = folder.resolve()
    # Gradio serves whatever lies in its folder for temporary files, by default one that all of a machine's
    # Gradio programs share.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder)
    sessions = Sessions(folder)
    with gr.Blocks(title="triplaneturbo", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(panels.title())
        if engine.notice:
            gr.HTML(panels.notice(engine.notice))
        generate.build(engine, sessions)
        endpoint.build(engine, sessions)

        def leave(page: gr.Request) -> None:
            sessions.leave(page.session_hash)

        page.unload(leave)
        page.load(None, None, None, js=ON_LOAD, api_visibility="private")
    return page
