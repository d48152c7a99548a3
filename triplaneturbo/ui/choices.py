"""Several meshes to choose from: variants of a seed, more like one, a blend's series."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.ui import panels
from triplaneturbo.ui.form import to_fields, to_request
from triplaneturbo.ui.jobs import Made, Stopped
from triplaneturbo.ui.news import FOLLOWED, News, begun, ended, visitor
from triplaneturbo.ui.several import Several, follow_several, like, previews, seeds, series

if TYPE_CHECKING:
    from gradio.events import Dependency

    from triplaneturbo.engine import Engine
    from triplaneturbo.limits import Guard
    from triplaneturbo.request import Request
    from triplaneturbo.ui.controls import Controls
    from triplaneturbo.ui.result import Pane
    from triplaneturbo.ui.sessions import Session, Sessions

FEW = 4  # variants like one where a single one is asked for at a time


def wire(
    engine: Engine, sessions: Sessions, guard: Guard, asked: Controls, pane: Pane, shown: list[Any]
) -> Dependency:
    """Wire the variants and the series; returns the event that puts a chosen variant into the controls."""

    def more_like_it(page: gr.Request, count: int, strength: float, *values: Any) -> Iterator[News]:
        yield begun(engine, asked, values[0])
        session = sessions.of(page.session_hash)
        try:
            requests = like(to_request(*values), count if count > 1 else FEW, strength)
            guard.admit(*requests, **visitor(page))
        except UserError as error:
            yield _refused(asked, error)
            return
        yield from _variants(engine, session, asked, pane, requests)

    def choose(page: gr.Request, event: gr.SelectData) -> list[Any]:
        variants = sessions.of(page.session_hash).variants
        number = int(event.index)
        return to_fields(variants[number]) if number < len(variants) else [gr.skip() for _ in asked.fields]

    def make_series(page: gr.Request, count: int, *values: Any) -> Iterator[News]:
        yield begun(engine, asked, values[0]) | {asked.series.download: gr.update(interactive=False)}
        session = sessions.of(page.session_hash)
        try:
            requests = series(to_request(*values), int(count))
            guard.admit(*requests, **visitor(page))
        except UserError as error:
            yield _refused(asked, error)
            return
        for event in follow_several(engine, session, requests):
            if not isinstance(event, Several):
                yield {asked.status: panels.status(event)} | (
                    ended(asked) if isinstance(event, Stopped) else {}
                )
                continue
            session.variants = requests
            yield _pictures(event, requests, pane)
            if event.complete:
                try:
                    archive = _zip(session.folder / "series.zip", event)
                except OSError as error:
                    sentence = f"The series cannot be packed: {error.strerror}; free some space."
                    yield _refused(asked, UserError(sentence))
                    return
                yield ended(asked) | {
                    asked.status: panels.several(event),
                    asked.series.download: gr.update(value=str(archive), interactive=True),
                }

    pane.more.click(more_like_it, [asked.count, pane.strength, *asked.fields], shown, **FOLLOWED)
    asked.series.start.click(
        make_series, [asked.series.count, *asked.fields], [*shown, asked.series.download], **FOLLOWED
    )
    # Gradio looks for the class itself, and annotations are texts here.
    choose.__annotations__ = {"page": gr.Request, "event": gr.SelectData}
    return pane.variants.select(
        choose, None, asked.fields, queue=False, show_progress="hidden", api_visibility="private"
    )


def seeds_of(
    engine: Engine,
    guard: Guard,
    page: gr.Request,
    session: Session,
    asked: Controls,
    pane: Pane,
    values: Sequence[Any],
    count: int,
) -> Iterator[News]:
    """Variants of the controls' request: its seed, and those that follow."""
    try:
        requests = seeds(to_request(*values), count)
        guard.admit(*requests, **visitor(page))
    except UserError as error:
        yield _refused(asked, error)
        return
    yield from _variants(engine, session, asked, pane, requests)


def _variants(
    engine: Engine, session: Session, asked: Controls, pane: Pane, requests: list[Request]
) -> Iterator[News]:
    yield {pane.tabs: gr.update(selected="variants")}
    for event in follow_several(engine, session, previews(requests)):
        if isinstance(event, Several):
            session.variants = requests
            yield _pictures(event, requests, pane)
            if event.complete:
                yield ended(asked) | {asked.status: panels.several(event)}
        else:
            yield {asked.status: panels.status(event)} | (ended(asked) if isinstance(event, Stopped) else {})


def _pictures(event: Several, requests: Sequence[Request], pane: Pane) -> News:
    pictures = [
        (str(picture), panels.variant(request))
        for picture, request in zip(event.pictures, requests, strict=False)
    ]
    return {pane.variants: gr.update(value=pictures, selected_index=None)}


def _refused(asked: Controls, error: UserError) -> News:
    return ended(asked) | {asked.status: panels.status(Stopped(str(error)))}


def _zip(path: Path, event: Several) -> Path:
    """The meshes in order, in one archive; they are compressed already."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as archive:
        for number, made in enumerate(event.made):
            if isinstance(made, Made):
                archive.write(made.files["glb"], f"{number:02}-{made.files['glb'].name}")
    return part.replace(path)
