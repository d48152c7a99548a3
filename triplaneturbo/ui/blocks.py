"""The page as a whole, and the options with which it is served.

    history, limits = History(Path("outputs/history")), Limits()
    with live_folder(history) as folder:
        admission = TrainingAccess(Admin("127.0.0.1"), folder)
        page = build(engine, folder, history, RequestLimiter(limits), admission)
        options = filter_options(ServedFiles(history), limits, admission)
        page.launch(server_name="127.0.0.1", **SERVING, **theme_options(), **options)

This package imports no torch; the engine does the work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.models.catalog import ROOT
from triplaneturbo.serving.admin import Admin
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.mcp_access import McpAccess
from triplaneturbo.serving.refine_request import RefineUploads
from triplaneturbo.serving.sessions import Session, Sessions
from triplaneturbo.serving.training_access import TrainingAccess
from triplaneturbo.serving.uploads import Uploads
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.assets.theme import theme
from triplaneturbo.ui.generate import endpoint, generate_tab, mcp_tools, panels
from triplaneturbo.ui.training import training_tab

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.user_history import History

# No sharing, analytics, uploads or browser storage by Gradio, and no requests to other servers.
SERVING: dict[str, Any] = {
    "share": False,
    "quiet": True,
    "ssr_mode": False,
    "mcp_server": False,
    "pwa": True,
    "enable_monitoring": False,
    "run_history": False,
    "footer_links": [],
    "max_file_size": 1,
}

# The words of the page that a phone opens by the QR code.
AR_WORDS = {"view": "View in your room", "download": "Download the GLB", "close": "Go to the page"}


def theme_options() -> dict[str, Any]:
    """Return the options of `launch` for theme, style sheets and icon."""
    return {
        "theme": theme(),
        "css": f"{read('theme.css')}\n{read('training.css')}\n",
        "favicon_path": str(ROOT / "assets" / "favicon.svg"),
    }


def build(
    engine: Engine,
    folder: Path,
    history: History | None = None,
    guard: RequestLimiter | None = None,
    admission: TrainingAccess | None = None,
    mcp: McpAccess | None = None,
    uploads: Uploads | None = None,
) -> gr.Blocks:
    """Build the page for an engine. Files are served only from `folder` and the history's folder.

    Args:
        engine: makes the meshes.
        folder: temporary files of open pages, inside the history's folder if there is one; the caller
            deletes it when the page is closed.
        history: stores results; None stores none.
        guard: enforces limits per visitor; None uses the loose limits of a local server.
        admission: decides who may fine-tune; None allows visitors on this machine.
        mcp: gets the tools for agents, and lets them connect once the page is launched; None: no tools.
        uploads: receives meshes and pictures to refine from visitors whom the guard allows it.
    """
    folder = folder.resolve()
    guard = guard or RequestLimiter(Limits.for_host("localhost"))
    admission = admission or TrainingAccess(Admin("localhost"), folder)
    uploads = uploads or RefineUploads(folder, engine.domain.takes_pictures)
    # Gradio serves every file in its temporary folder, by default one shared by all Gradio programs of a
    # machine, and copies files from elsewhere into it.
    os.environ["GRADIO_TEMP_DIR"] = str(history.root if history is not None else folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = os.environ["GRADIO_TEMP_DIR"]

    def forget(session: Session, digests: set[str]) -> None:
        uploads.drop(session.upload_key)
        for digest in digests:
            engine.refinements.drop_upload(digest, session.folder.name)

    sessions = Sessions(folder, quota=guard.limits.live, on_removed=forget)
    with gr.Blocks(title="triplaneturbo", analytics_enabled=False, fill_width=True) as page:
        if engine.notice:
            gr.HTML(panels.notice(engine.notice))
        gr.HTML(panels.title())
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Generate", id="generate", render_children=True):
                adapter = generate_tab.build(page, engine, sessions, history, guard, uploads)
            with gr.Tab("Advanced", id="advanced", render_children=True):
                training_tab.build(page, engine, sessions, admission, adapter)
        endpoint.build(engine, sessions, guard)
        if mcp is not None:
            mcp.endpoints = mcp_tools.build(engine, sessions, guard)

        def leave(page: gr.Request) -> None:
            sessions.leave(page.session_hash)

        page.unload(leave)
        script = read("on_load.js", **AR_WORDS)
        page.load(None, None, None, js=script, api_visibility="private")
    return page
