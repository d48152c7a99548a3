"""Run one request of the Generate tab: Generate, live, a look, a refinement; for several see `choices`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.ui.generate.following import follow_job
from triplaneturbo.ui.generate.form import to_file_options
from triplaneturbo.ui.generate.updates import Updates, refused, started, visitor

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Sketches
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView


@dataclass(frozen=True)
class PageJobs:
    """What the buttons of the Generate tab need to run requests.

    Attributes:
        history: the histories of all users; None: nothing is saved.
        guard: the limits of the server.
    """

    engine: Engine
    sessions: Sessions
    history: History | None
    guard: RequestLimiter
    controls: Controls
    result_view: ResultView

    def run(
        self,
        page: gr.Request,
        token: str,
        placing: Sequence[Any],
        request_of: Callable[[Session], Request],
        *,
        check_context: AbstractContextManager[None] | None = None,
        on_admitted: Callable[[Request], Updates] = lambda request: {},
        sketches: Sketches = "none",
        live: bool = False,
    ) -> Iterator[Updates]:
        """Make, check and submit a request, and yield the updates of the page until it has ended.

        Args:
            page: the request of the browser's event.
            token: the secret token that identifies the browser.
            placing: values of the controls of `FileOptions`.
            request_of: returns the request; may raise UserError.
            check_context: entered while the request is made and checked against the limits; may raise
                UserError.
            on_admitted: returns further updates for the page once the request is admitted.
            sketches: which denoising steps the viewer shows.
            live: whether the page generates while the user types.
        """
        session = self.sessions.of(page.session_hash)
        number = session.enter()
        try:
            with check_context or nullcontext():
                request = request_of(session)
                options = to_file_options(*placing)
                self.guard.admit(request, **visitor(page))
        except UserError as error:
            yield refused(self.controls, error)
            return
        yield (
            started(self.engine, self.controls, request.prompt, request.look, live)
            | {self.result_view.refine.start: gr.update(interactive=False)}
            | on_admitted(request)
        )
        yield from follow_job(
            self.engine, session, self.history, self.controls, self.result_view, request, options, token,
            number=number, sketches=sketches, live=live,
        )  # fmt: skip


def shown_request(session: Session, model: str, verb: str, missing: str) -> Request:
    """Return the request of the result that the page shows, which the loaded model can make again.

    Args:
        model: the name of the loaded model.
        verb: what is to be done with the result, for messages.
        missing: the end of "There is no result", for messages.

    Raises:
        UserError: there is no result, it cannot be made again, or another model made it.
    """
    if session.shown is None:
        if session.chosen:
            raise UserError("This result began with an uploaded file, which is not kept; upload it again.")
        raise UserError(f"There is no result {missing}; generate one first, or click one in the history.")
    request, made_by = session.shown
    if made_by != model:
        raise UserError(
            f"The model {made_by} made this result; restart the server with --model {made_by} to {verb} it."
        )
    return request
