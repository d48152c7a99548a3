"""The Refine button: refine the result that the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.generate.form import whole
from triplaneturbo.ui.generate.page_jobs import PageJobs, shown_request
from triplaneturbo.ui.generate.result import refine_choices
from triplaneturbo.ui.generate.updates import STREAMED, Updates

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session


def wire(jobs: PageJobs, outputs: list[Any]) -> None:
    """Wire the button; `outputs` are the components that a generation updates."""
    button = jobs.result_view.refine

    def refine_shown(page: gr.Request, steps: int, token: str, *placing: Any) -> Iterator[Updates]:
        def request_of(session: Session) -> RefineRequest:
            return refinement_of_shown(jobs.engine, session, steps)

        yield from jobs.run(page, token, placing, request_of)
        # The durations are known better now.
        yield {button.steps: gr.update(choices=refine_choices(jobs.engine))}

    button.start.click(
        refine_shown,
        [button.steps, jobs.result_view.history.token, *jobs.controls.placing],
        [*outputs, button.steps],
        **STREAMED,
    )


def refinement_of_shown(engine: Engine, session: Session, steps: Any) -> RefineRequest:
    """Return the request for the refinement of the shown result.

    Raises:
        UserError: there is none, it cannot be refined, or another model made it.
    """
    draft = shown_request(session, engine.name, "refine", missing="to refine")
    return RefineRequest.of(draft, whole(steps)).checked()
