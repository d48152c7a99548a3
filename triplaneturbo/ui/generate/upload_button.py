"""The button that refines an uploaded mesh, or a draft toward an uploaded picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.refine_request import PICTURE, PICTURE_SUFFIXES, RefineRequest
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate.form import to_request, whole
from triplaneturbo.ui.generate.page_jobs import PageJobs
from triplaneturbo.ui.generate.updates import STREAMED, Updates, started, visitor

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session
    from triplaneturbo.serving.uploads import Uploads


def wire(page: gr.Blocks, jobs: PageJobs, uploads: Uploads, outputs: list[Any]) -> None:
    """Wire the button; `outputs` are the components that a generation updates."""
    controls, button = jobs.controls, jobs.result_view.refine
    placing = len(controls.placing)

    def enter(page: gr.Request) -> Updates:
        allowed = jobs.guard.allows_uploads(visitor(page)["local"])
        session = jobs.sessions.of(page.session_hash)
        session.upload_key = uploads.issue() if allowed else ""
        return {button.key: session.upload_key, button.upload: gr.update(visible=allowed)}

    def refine_upload(
        page: gr.Request, key: str, uploaded: str, prompt: str, steps: int, token: str, *values: Any
    ) -> Iterator[Updates]:
        if not uploaded:
            yield {controls.status: gr.skip()}
            return

        def request_of(session: Session) -> RefineRequest:
            if uploaded != "uploaded":
                raise UserError(uploaded)
            return uploaded_request(uploads, key, to_request(prompt, *values[placing:]), steps)

        def on_admitted(request: Request) -> Updates:
            """Give no feedback on the prompt that takes the place of a blank one."""
            prompt = "" if request.prompt == PICTURE else request.prompt
            return started(jobs.engine, controls, prompt, request.look)

        upload = stored_upload(jobs.engine, jobs.sessions.of(page.session_hash), uploads, key)
        yield from jobs.run(
            page, token, values[:placing], request_of, check_context=upload, on_admitted=on_admitted
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
        [*chosen, button.steps, jobs.result_view.history.token, *controls.placing, *fields],
        outputs,
        **STREAMED,
    )


@contextmanager
def stored_upload(engine: Engine, session: Session, uploads: Uploads, key: str) -> Iterator[None]:
    """Parse and store the page's uploaded file if its request is admitted in this context; then delete it.

    It is kept as long as the session, which may end while the file is parsed.

    Raises:
        UserError: the file cannot be refined.
    """
    try:
        yield
        owner = session.folder.name
        digest = engine.refinements.store_upload(uploads.uploaded(key), owner)
        if not session.add_upload(digest):
            engine.refinements.drop_upload(digest, owner)
    finally:
        uploads.drop(key)


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
