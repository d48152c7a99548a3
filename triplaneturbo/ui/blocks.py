"""The page as a whole, and how it is to be served.

    history, limits = History(Path("outputs/history")), Limits()
    with live_folder(history) as folder:
        admission = Admission(Admin("127.0.0.1"), folder)
        page = build(engine, folder, history, Guard(limits), admission)
        gate = guarded(Served(history), limits, admission)
        page.launch(server_name="127.0.0.1", **SERVING, **look(), **gate)

This floor imports no torch: the engine gives what is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.models.catalog import ROOT
from triplaneturbo.serving.admin import Admin
from triplaneturbo.serving.limits import Guard, Limits
from triplaneturbo.serving.sessions import Sessions
from triplaneturbo.serving.training_access import TrainingAccess
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.assets.theme import theme
from triplaneturbo.ui.generate import endpoint, generate_tab, panels
from triplaneturbo.ui.training import training_tab

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.user_history import History

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
    return {
        "theme": theme(),
        "css": f"{read('theme.css')}\n{read('training.css')}\n",
        "favicon_path": str(ROOT / "assets" / "favicon.svg"),
    }


def build(
    engine: Engine,
    folder: Path,
    history: History | None = None,
    guard: Guard | None = None,
    admission: TrainingAccess | None = None,
) -> gr.Blocks:
    """The page for an engine; files are served from `folder` and from the history's alone.

    Args:
        engine: makes the meshes.
        folder: for what does not outlive the page, in the history's if there is one; whoever calls this
            deletes it when the page is closed.
        history: keeps results; None: none are kept.
        guard: holds visitors to limits; None: there are only loose ones.
        admission: says who may train; None: whoever is at this machine.
    """
    folder = folder.resolve()
    guard = guard or Guard(Limits.for_host("localhost"))
    admission = admission or TrainingAccess(Admin("localhost"), folder)
    # Gradio serves whatever lies in its folder for temporary files, by default one that all of a machine's
    # Gradio programs share; and what lies elsewhere it copies there.
    os.environ["GRADIO_TEMP_DIR"] = str(history.root if history is not None else folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = os.environ["GRADIO_TEMP_DIR"]
    sessions = Sessions(folder, quota=guard.limits.live)
    with gr.Blocks(title="triplaneturbo", analytics_enabled=False, fill_width=True) as page:
        if engine.notice:
            gr.HTML(panels.notice(engine.notice))
        gr.HTML(panels.title())
        with gr.Tabs(elem_id="rooms"):
            with gr.Tab("Generate", id="generate", render_children=True):
                adapter = generate_tab.build(page, engine, sessions, history, guard)
            with gr.Tab("Advanced", id="advanced", render_children=True):
                training_tab.build(page, engine, sessions, admission, adapter)
        endpoint.build(engine, sessions, guard)

        def leave(page: gr.Request) -> None:
            sessions.leave(page.session_hash)

        page.unload(leave)
        page.load(None, None, None, js=read("on_load.js"), api_visibility="private")
    return page
