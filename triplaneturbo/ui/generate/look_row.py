"""Row of suggested looks below the viewer: a click recolours the shown result and keeps its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.jobs import Stopped
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.following import follow_job
from triplaneturbo.ui.generate.form import to_fields, to_file_options
from triplaneturbo.ui.generate.updates import STREAMED, Updates, started, visitor

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView


def wire(
    engine: Engine,
    sessions: Sessions,
    history: History | None,
    guard: RequestLimiter,
    controls: Controls,
    result_view: ResultView,
    outputs: list[Any],
) -> None:
    """Wire the row; `outputs` are the components that a generation updates."""

    def recolour(page: gr.Request, row: list[str], token: str, *placing: Any) -> Iterator[Updates]:
        session = sessions.of(page.session_hash)
        number = session.enter()
        try:
            request = recoloured(engine, session, row[0])
            options = to_file_options(*placing)
            guard.admit(request, **visitor(page))
        except UserError as error:
            yield {controls.status: panels.status(Stopped(str(error)))}
            return
        # The form shows what is generated, so that Generate makes it again.
        settings = dict(zip(controls.fields, to_fields(request), strict=True))
        yield started(engine, controls, request.prompt, request.look) | settings
        yield from follow_job(
            engine, session, history, controls, result_view, request, options, token, number=number
        )

    result_view.looks.click(
        recolour,
        [result_view.looks, result_view.history.token, *controls.placing],
        [*outputs, *controls.fields],
        **STREAMED,
    )


def recoloured(engine: Engine, session: Session, look: str) -> Request:
    """Return the request for the shape of the shown result with another look.

    Raises:
        UserError: there is no result, it is refined, or another model made it.
    """
    if session.shown is None:
        raise UserError("There is no result yet; generate one first, or click one in the history.")
    draft, model = session.shown
    if model != engine.name:
        raise UserError(
            f"The model {model} made this result; restart the server with --model {model} to recolour it."
        )
    if isinstance(draft, RefineRequest):
        raise UserError("A refined result cannot be recoloured; click its draft in the history instead.")
    return replace(draft, look=look, keep_shape=True).checked()
