"""Several meshes at once: variants by seed, "More like this", and the series of a blend."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, like, previews, series
from triplaneturbo.serving.file_options import FileOptions
from triplaneturbo.serving.jobs import MeshReady, Stopped
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.form import FILE_FIELDS, LOOK, to_fields, to_file_options, to_request
from triplaneturbo.ui.generate.page_jobs import PageJobs
from triplaneturbo.ui.generate.updates import STREAMED, Updates, finished, refused, started, visitor

if TYPE_CHECKING:
    from gradio.events import Dependency

    from triplaneturbo.request import Request
    from triplaneturbo.ui.generate.result import ResultView

DEFAULT_VARIANTS = 4  # of "More like this" where the count is 1


def wire(jobs: PageJobs, outputs: list[Any]) -> Dependency:
    """Wire the variants and the series; `outputs` are the components that a generation updates.

    Returns:
        The event that fills the controls with the settings of a selected variant.
    """
    engine, sessions, controls, result_view = jobs.engine, jobs.sessions, jobs.controls, jobs.result_view

    def more_like_this(page: gr.Request, count: int, strength: float, *values: Any) -> Iterator[Updates]:
        yield started(engine, controls, values[0], values[LOOK])
        number = count if count > 1 else DEFAULT_VARIANTS
        yield from run_batch(jobs, page, lambda: like(to_request(*values), number, strength))

    def select(page: gr.Request, event: gr.SelectData) -> list[Any]:
        variants = sessions.of(page.session_hash).variants
        number = int(event.index)
        return to_fields(variants[number]) if number < len(variants) else [gr.skip() for _ in controls.fields]

    def make_series(page: gr.Request, count: int, *values: Any) -> Iterator[Updates]:
        download = controls.series.download
        placing, fields = values[: len(FILE_FIELDS)], values[len(FILE_FIELDS) :]
        yield started(engine, controls, fields[0], fields[LOOK]) | {download: gr.update(interactive=False)}

        def pack(event: BatchProgress) -> Updates:
            archive = _zip(sessions.of(page.session_hash).folder / "series.zip", event)
            return {download: gr.update(value=str(archive), interactive=True)}

        yield from run_batch(
            jobs,
            page,
            lambda: series(to_request(*fields), int(count)),
            lambda: to_file_options(*placing),
            pack,
        )

    result_view.more.click(
        more_like_this, [controls.count, result_view.strength, *controls.fields], outputs, **STREAMED
    )
    controls.series.start.click(
        make_series,
        [controls.series.count, *controls.placing, *controls.fields],
        [*outputs, controls.series.download],
        **STREAMED,
    )
    return result_view.variants.select(select, None, controls.fields, **UNQUEUED)


def run_batch(
    jobs: PageJobs,
    page: gr.Request,
    make_requests: Callable[[], list[Request]],
    make_options: Callable[[], FileOptions] = FileOptions,
    pack: Callable[[BatchProgress], Updates] | None = None,
) -> Iterator[Updates]:
    """Generate a batch of meshes, and show a thumbnail of each in the Variants tab.

    Args:
        make_requests: returns the requests; may raise UserError.
        make_options: returns the options of the files; may raise UserError.
        pack: called when all meshes are complete; returns further updates. Without it only previews of the
            meshes are made, which is faster.
    """
    controls, result_view = jobs.controls, jobs.result_view
    session = jobs.sessions.of(page.session_hash)
    try:
        requests, options = make_requests(), make_options()
        jobs.guard.admit(*requests, **visitor(page))
    except UserError as error:
        yield finished(controls) | refused(controls, error)
        return
    if pack is None:
        yield {result_view.tabs: gr.update(selected="variants")}
    chosen = requests if pack else previews(requests)
    for event in follow_batch(jobs.engine, session, chosen, options=options):
        if not isinstance(event, BatchProgress):
            yield {controls.status: panels.status(event)} | (
                finished(controls) if isinstance(event, Stopped) else {}
            )
            continue
        session.variants = requests
        yield _thumbnails(event, requests, result_view)
        if event.complete:
            try:
                extra = pack(event) if pack else {}
            except OSError as error:
                reason = f"Could not write the ZIP: {error.strerror}. Free some disk space."
                yield finished(controls) | refused(controls, UserError(reason))
                return
            yield finished(controls) | {controls.status: panels.batch_done(event)} | extra


def _thumbnails(event: BatchProgress, requests: Sequence[Request], result_view: ResultView) -> Updates:
    items = [
        (str(picture), panels.variant_caption(request))
        for picture, request in zip(event.pictures, requests, strict=False)
    ]
    return {result_view.variants: gr.update(value=items, selected_index=None)}


def _zip(path: Path, event: BatchProgress) -> Path:
    """Write the meshes in order to one archive, uncompressed since GLB files hardly shrink."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for number, made in enumerate(event.made):
            if isinstance(made, MeshReady):
                archive.write(made.files["glb"], f"{number:02}-{made.files['glb'].name}")
    return part.replace(path)
