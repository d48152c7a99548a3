"""The Turntable button of the Pictures tab: an animation and a still image of the last mesh, to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.serving.output_files import safe_name
from triplaneturbo.ui.generate.updates import STREAMED, Updates, refused, visitor
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView

SIZE, FRAMES, SECONDS = 384, 36, 4.0
STILL_SIZE = 1024


def wire(
    engine: Engine,
    sessions: Sessions,
    guard: RequestLimiter,
    controls: Controls,
    result_view: ResultView,
) -> None:
    """Wire the button; the downloads are enabled when their files are written."""
    view = result_view.turntable

    def render(page: gr.Request) -> Updates:
        session = sessions.of(page.session_hash)
        request = session.made
        try:
            if request is None:
                raise UserError("There is no mesh to render yet; generate one first.")
            guard.admit(request, **visitor(page))
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
