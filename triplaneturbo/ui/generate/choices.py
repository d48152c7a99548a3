"""Several meshes to choose from: variants of a seed, more like one, a blend's series."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, like, previews, series
from triplaneturbo.serving.jobs import MeshReady, Stopped
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.controls import QUICK
from triplaneturbo.ui.generate.form import to_fields, to_request
from triplaneturbo.ui.generate.updates import FOLLOWED, Updates, finished, started, visitor

if TYPE_CHECKING:
    from gradio.events import Dependency

    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import Guard
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import Pane

FEW = 4  # variants like one where a single one is asked for at a time


def wire(
    engine: Engine, sessions: Sessions, guard: Guard, asked: Controls, pane: Pane, shown: list[Any]
) -> Dependency:
    """Wire the variants and the series; returns the event that puts a chosen variant into the controls."""

    def more_like_it(page: gr.Request, count: int, strength: float, *values: Any) -> Iterator[Updates]:
        yield started(engine, asked, values[0])
        number = count if count > 1 else FEW
        yield from offer(
            engine, sessions, guard, page, asked, pane, lambda: like(to_request(*values), number, strength)
        )

    def choose(page: gr.Request, event: gr.SelectData) -> list[Any]:
        variants = sessions.of(page.session_hash).variants
        number = int(event.index)
        return to_fields(variants[number]) if number < len(variants) else [gr.skip() for _ in asked.fields]

    def make_series(page: gr.Request, count: int, *values: Any) -> Iterator[Updates]:
        download = asked.series.download
        yield started(engine, asked, values[0]) | {download: gr.update(interactive=False)}

        def pack(event: BatchProgress) -> Updates:
            archive = _zip(sessions.of(page.session_hash).folder / "series.zip", event)
            return {download: gr.update(value=str(archive), interactive=True)}

        yield from offer(
            engine, sessions, guard, page, asked, pane, lambda: series(to_request(*values), int(count)), pack
        )

    pane.more.click(more_like_it, [asked.count, pane.strength, *asked.fields], shown, **FOLLOWED)
    asked.series.start.click(
        make_series, [asked.series.count, *asked.fields], [*shown, asked.series.download], **FOLLOWED
    )
    return pane.variants.select(choose, None, asked.fields, **QUICK)


def offer(
    engine: Engine,
    sessions: Sessions,
    guard: Guard,
    page: gr.Request,
    asked: Controls,
    pane: Pane,
    choose: Callable[[], list[Request]],
    pack: Callable[[BatchProgress], Updates] | None = None,
) -> Iterator[Updates]:
    """Make what `choose` asks for, and show pictures of it to choose from.

    Args:
        pack: given, the meshes are made whole, and this says what else the page shows when all are there;
            otherwise they are made as quick forms.
    """
    session = sessions.of(page.session_hash)
    try:
        requests = choose()
        guard.admit(*requests, **visitor(page))
    except UserError as error:
        yield _refused(asked, str(error))
        return
    if pack is None:
        yield {pane.tabs: gr.update(selected="variants")}
    for event in follow_batch(engine, session, requests if pack else previews(requests)):
        if not isinstance(event, BatchProgress):
            yield {asked.status: panels.status(event)} | (
                finished(asked) if isinstance(event, Stopped) else {}
            )
            continue
        session.variants = requests
        yield _pictures(event, requests, pane)
        if event.complete:
            try:
                more = pack(event) if pack else {}
            except OSError as error:
                yield _refused(asked, f"The series cannot be packed: {error.strerror}; free some space.")
                return
            yield finished(asked) | {asked.status: panels.several(event)} | more


def _pictures(event: BatchProgress, requests: Sequence[Request], pane: Pane) -> Updates:
    pictures = [
        (str(picture), panels.variant(request))
        for picture, request in zip(event.pictures, requests, strict=False)
    ]
    return {pane.variants: gr.update(value=pictures, selected_index=None)}


def _refused(asked: Controls, sentence: str) -> Updates:
    return finished(asked) | {asked.status: panels.status(Stopped(sentence))}


def _zip(path: Path, event: BatchProgress) -> Path:
    """The meshes in order, in one archive; they are compressed already."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for number, made in enumerate(event.made):
            if isinstance(made, MeshReady):
                archive.write(made.files["glb"], f"{number:02}-{made.files['glb'].name}")
    return part.replace(path)
