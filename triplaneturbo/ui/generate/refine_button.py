"""The Refine button: refine the result that the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.jobs import Stopped
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.following import follow_job
from triplaneturbo.ui.generate.form import to_placement, whole
from triplaneturbo.ui.generate.result import refine_choices
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
    """Wire the button; `outputs` are the components that a generation updates."""
    button = result_view.refine

    def refine_shown(page: gr.Request, steps: int, token: str, *placing: Any) -> Iterator[Updates]:
        session = sessions.of(page.session_hash)
        number = session.enter()
        try:
            request = refinement_of_shown(engine, session, steps)
            placement = to_placement(*placing)
            guard.admit(request, **visitor(page))
        except UserError as error:
            yield {controls.status: panels.status(Stopped(str(error)))}
            return
        yield started(engine, controls, request.prompt, "") | {button.start: gr.update(interactive=False)}
        yield from follow_job(
            engine, session, history, controls, result_view, request, placement, token, number=number
        )
        # The durations are known better now.
        yield {button.steps: gr.update(choices=refine_choices(engine))}

    button.start.click(
        refine_shown,
        [button.steps, result_view.history.token, *controls.placing],
        [*outputs, button.steps],
        **STREAMED,
    )


def refinement_of_shown(engine: Engine, session: Session, steps: Any) -> RefineRequest:
    """Return the request for the refinement of the shown result.

    Raises:
        UserError: there is none, it cannot be refined, or another model made it.
    """
    if session.shown is None:
        raise UserError("There is no result to refine; generate one first, or click one in the history.")
    draft, model = session.shown
    if model != engine.name:
        raise UserError(
            f"The model {model} made this result; restart the server with --model {model} to refine it."
        )
    return RefineRequest.of(draft, whole(steps)).checked()
