"""Row of suggested looks below the viewer: a click recolours the shown result and keeps its shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.generate.form import to_fields
from triplaneturbo.ui.generate.page_jobs import PageJobs, shown_request
from triplaneturbo.ui.generate.updates import STREAMED, Updates

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session


def wire(jobs: PageJobs, outputs: list[Any]) -> None:
    """Wire the row; `outputs` are the components that a generation updates."""
    controls, looks = jobs.controls, jobs.result_view.looks

    def recolour(page: gr.Request, row: list[str], token: str, *placing: Any) -> Iterator[Updates]:
        def request_of(session: Session) -> Request:
            return recoloured(jobs.engine, session, row[0])

        def settings(request: Request) -> Updates:
            """Show in the form what is generated, so that Generate makes it again."""
            return dict(zip(controls.fields, to_fields(request), strict=True))

        yield from jobs.run(page, token, placing, request_of, on_admitted=settings)

    looks.click(
        recolour,
        [looks, jobs.result_view.history.token, *controls.placing],
        [*outputs, *controls.fields],
        **STREAMED,
    )


def recoloured(engine: Engine, session: Session, look: str) -> Request:
    """Return the request for the shape of the shown result with another look.

    Raises:
        UserError: there is no result, it is refined, or another model made it.
    """
    draft = shown_request(session, engine.name, "recolour", missing="yet")
    if isinstance(draft, RefineRequest):
        raise UserError("A refined result cannot be recoloured; click its draft in the history instead.")
    return replace(draft, look=look, keep_shape=True).checked()
