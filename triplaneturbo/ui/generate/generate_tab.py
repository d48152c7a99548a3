"""The Generate tab: what is asked for at the left, what came of it at the right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.serving.batch_jobs import seeds
from triplaneturbo.serving.jobs import Event, MeshReady, Stopped, Working, follow
from triplaneturbo.serving.history_writer import HistoryWriter
from triplaneturbo.ui.generate import choices, controls, debug_images, history_tab, panels, reconnect, result
from triplaneturbo.ui.generate.form import FIELDS, to_placement, to_request
from triplaneturbo.ui.generate.updates import FOLLOWED, Updates, finished, started, visitor

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Sketches
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import Guard
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.generate.controls import Controls
    from triplaneturbo.ui.generate.result import Pane


# Seconds. While somebody types, most meshes are looked at once and never downloaded.
PATIENCE = 0.7
BEFORE = 5  # the controls of a Placement and the browser's token come before those of the Request


def build(
    page: gr.Blocks, engine: Engine, sessions: Sessions, history: History | None, guard: Guard
) -> gr.Dropdown:
    """Put the tab into the Blocks that is being built; returns the choice of adapters."""
    with gr.Row(elem_id="page", equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="controls"):
            asked = controls.build(engine)
        with gr.Column(scale=8, min_width=320, elem_id="result"):
            pane = result.build()
    page.load(
        lambda: controls.known_adapters(engine),
        None,
        asked.fields[FIELDS.index("adapter")],
        show_progress="hidden",
        api_visibility="private",
    )
    _wire(engine, sessions, history, guard, asked, pane)
    if history is not None:
        history_tab.wire(page, sessions, history, guard, asked, pane)
    reconnect.wire(page, asked)
    return asked.fields[FIELDS.index("adapter")]


def _wire(
    engine: Engine,
    sessions: Sessions,
    history: History | None,
    guard: Guard,
    asked: Controls,
    pane: Pane,
) -> None:
    shown = [asked.start, asked.stop, asked.status, pane.view, pane.facts, pane.tabs, pane.variants]
    shown += [*pane.downloads.values(), *([] if asked.reading is None else [asked.reading])]
    shown += [pane.pictures, pane.past.gallery, pane.past.chosen, *pane.past.buttons.values()]
    inputs = [asked.forming, *asked.placing, pane.past.token, *asked.fields]

    def one(page: gr.Request, forming: bool, given: tuple[Any, ...], live: bool = False) -> Iterator[Updates]:
        placing, token, values = given[: BEFORE - 1], given[BEFORE - 1], given[BEFORE:]
        session = sessions.of(page.session_hash)
        number = session.enter()
        yield started(engine, asked, values[0], live)
        try:
            request, placement = to_request(*values), to_placement(*placing)
            guard.admit(request, **visitor(page))
        except UserError as error:
            yield finished(asked) | {asked.status: panels.status(Stopped(str(error)))}
            return
        sketches: Sketches = "all" if forming else "first" if live else "none"
        events = follow(
            engine,
            session,
            request,
            sketches=sketches,
            placement=placement,
            number=number,
            patience=PATIENCE if live else 0,
        )
        keeping = HistoryWriter(engine, history, token, placement, passing=live)
        with keeping.following():
            for event in events:
                news = _news(event, asked, pane)
                if isinstance(event, MeshReady):
                    if keeping.keep(event):
                        news |= history_tab.listed(keeping.shelf, session, pane)
                    if keeping.refused:
                        news |= {asked.status: panels.status(Stopped(keeping.refused))}
                if isinstance(event, MeshReady) and event.complete:
                    session.made = event.request
                yield news
                if isinstance(event, MeshReady) and event.complete:
                    drawn = debug_images.of_last(engine, session, pane)
                    if drawn:
                        yield drawn

    def pressed(page: gr.Request, count: int, forming: bool, *given: Any) -> Iterator[Updates]:
        if count == 1:
            yield from one(page, forming, given)
            return
        values = given[BEFORE:]
        yield started(engine, asked, values[0])
        yield from choices.offer(
            engine, sessions, guard, page, asked, pane, lambda: seeds(to_request(*values), count)
        )

    def paused(page: gr.Request, forming: bool, *given: Any) -> Iterator[Updates]:
        if (given[BEFORE] or "").strip():
            yield from one(page, forming, given, live=True)
        else:
            yield {asked.status: gr.update()}  # nothing at all would be taken for a blank page

    def opened(page: gr.Request, *given: Any) -> Iterator[Updates]:
        yield from one(page, False, given)

    def stop(page: gr.Request) -> None:
        sessions.of(page.session_hash).cancel()

    # An Enter that comes before the last one is over is not lost.
    gr.on(
        [asked.start.click, asked.prompt.submit],
        pressed,
        [asked.count, *inputs],
        shown,
        trigger_mode="always_last",
        **FOLLOWED,
    )
    # Each pause is followed at once: what it finds under way ends for it.
    asked.go.click(paused, inputs, shown, trigger_mode="multiple", **FOLLOWED)
    asked.stop.click(stop, **controls.QUICK)
    picked = choices.wire(engine, sessions, guard, asked, pane, shown)
    picked.then(opened, [*asked.placing, pane.past.token, *asked.fields], shown, **FOLLOWED)
    debug_images.wire(engine, sessions, pane)


def _news(event: Event, asked: Controls, pane: Pane) -> Updates:
    """What changes on the page with an event."""
    news: Updates = {asked.status: panels.status(event)}
    if isinstance(event, (Working, MeshReady)) and event.view is not None:
        news |= {pane.view: event.view.text}
    if isinstance(event, MeshReady):
        news |= {pane.facts: panels.facts(event)}
        # What is not there yet is not to be another mesh's.
        news |= {
            button: gr.update(
                value=str(event.files[name]) if name in event.files else None, interactive=name in event.files
            )
            for name, button in pane.downloads.items()
        }
    if isinstance(event, Stopped) or (isinstance(event, MeshReady) and event.complete):
        news |= finished(asked)
    return news
