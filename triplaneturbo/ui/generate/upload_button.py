"""The button that refines an uploaded mesh, or a draft toward an uploaded picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.jobs import Stopped
from triplaneturbo.serving.refine_request import PICTURE, PICTURE_SUFFIXES, RefineRequest
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.following import follow_job
from triplaneturbo.ui.generate.form import to_file_options, to_request, whole
from triplaneturbo.ui.generate.updates import STREAMED, Updates, started, visitor

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.serving.uploads import Uploads
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import ResultView


def wire(
    page: gr.Blocks,
    engine: Engine,
    sessions: Sessions,
    history: History | None,
    guard: RequestLimiter,
    uploads: Uploads,
    controls: Controls,
    result_view: ResultView,
    outputs: list[Any],
) -> None:
    """Wire the button; `outputs` are the components that a generation updates."""
    button, placing = result_view.refine, len(controls.placing)

    def enter(page: gr.Request) -> Updates:
        allowed = guard.allows_uploads(visitor(page)["local"])
        session = sessions.of(page.session_hash)
        session.upload_key = uploads.issue() if allowed else ""
        return {button.key: session.upload_key, button.upload: gr.update(visible=allowed)}

    def refine_upload(
        page: gr.Request, key: str, uploaded: str, prompt: str, steps: int, token: str, *values: Any
    ) -> Iterator[Updates]:
        if not uploaded:
            yield {controls.status: gr.skip()}
            return
        session = sessions.of(page.session_hash)
        number = session.enter()
        try:
            if uploaded != "uploaded":
                raise UserError(uploaded)
            options = to_file_options(*values[:placing])
            draft = to_request(prompt, *values[placing:])
            request = uploaded_request(uploads, key, draft, steps)
            guard.admit(request, **visitor(page))
            session.uploaded = engine.refinements.store_upload(uploads.uploaded(key))
        except UserError as error:
            yield {controls.status: panels.status(Stopped(str(error)))}
            return
        finally:
            uploads.drop(key)
        shown = "" if request.prompt == PICTURE else request.prompt
        yield started(engine, controls, shown, request.look) | {button.start: gr.update(interactive=False)}
        yield from follow_job(
            engine, session, history, controls, result_view, request, options, token, number=number
        )

    script = read(
        "upload.js",
        route="gradio_api/refine_upload",
        suffixes=",".join(uploads.suffixes),
        max_bytes=uploads.most,
        too_large=f"The file is too large: it may have at most {uploads.most >> 20} MB.",
    )
    page.load(enter, None, [button.key, button.upload], show_progress="hidden", api_visibility="private")
    prompt, *fields = controls.fields
    chosen = [button.key, button.upload_result, prompt]
    button.upload.click(
        None, chosen, chosen, js=script, show_progress="hidden", api_visibility="private"
    ).then(
        refine_upload,
        [*chosen, button.steps, result_view.history.token, *controls.placing, *fields],
        outputs,
        **STREAMED,
    )


def uploaded_request(uploads: Uploads, key: str, draft: Request, steps: Any) -> RefineRequest:
    """Return the request that refines the page's uploaded file, which is not parsed yet.

    Args:
        key: the key of the page.
        draft: the prompt, which may be blank for a picture, and the options of the mesh.
        steps: steps of the refinement.

    Raises:
        UserError: the page may not upload, there is no file, or a mesh has no prompt.
    """
    path = uploads.uploaded(uploads.check(key))
    if not draft.prompt.strip():
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise UserError("Say in the prompt what the mesh is, or is to look like, and upload it again.")
        draft = replace(draft, prompt=PICTURE)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"Cannot read {path.name}: {error.strerror}; upload it again.") from None
    return replace(RefineRequest.of(draft, whole(steps)), upload=digest).checked()
