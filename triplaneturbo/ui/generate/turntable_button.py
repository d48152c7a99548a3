"""The Turntable button of the Pictures tab: an animation and a still image of the shown mesh, to download."""

from __future__ import annotations

import gradio as gr

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.serving.output_files import safe_name
from triplaneturbo.serving.refine_request import repeated
from triplaneturbo.ui.generate.page_jobs import PageJobs, shown_request
from triplaneturbo.ui.generate.updates import STREAMED, Updates, refused, visitor
from triplaneturbo.utils.atomic_files import write_atomically

SIZE, FRAMES, SECONDS = 384, 36, 4.0
STILL_SIZE = 1024


def wire(jobs: PageJobs) -> None:
    """Wire the button; the downloads are enabled when their files are written."""
    engine, controls, view = jobs.engine, jobs.controls, jobs.result_view.turntable

    def render(page: gr.Request) -> Updates:
        session = jobs.sessions.of(page.session_hash)
        try:
            request = shown_request(session, engine.name, "render", missing="to render")
            jobs.guard.admit(*repeated(request), **visitor(page))
            with session.busy():
                mesh = engine.again(request).mesh  # usually still in the engine's cache
                stem = session.keep(f"{safe_name(request, engine.name)}-turntable")
                turn = write_atomically(
                    stem.with_suffix(".webp"), engine.turntable(mesh, SIZE, FRAMES, SECONDS)
                )
                still = write_atomically(stem.with_suffix(".png"), engine.thumbnail(mesh, STILL_SIZE))
        except UserError as error:
            return refused(controls, error)
        except Cancelled:
            return {controls.status: gr.skip()}
        return {
            view.animation: gr.update(value=str(turn), interactive=True),
            view.still: gr.update(value=str(still), interactive=True),
        }

    view.start.click(render, None, [view.animation, view.still, controls.status], **STREAMED)
