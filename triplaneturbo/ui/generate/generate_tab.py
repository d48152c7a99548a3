"""The Generate tab: controls on the left, the result on the right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.serving.batch_jobs import seeds
from triplaneturbo.ui.generate import (
    ar_button,
    choices,
    debug_images,
    downloads,
    history_tab,
    look_row,
    purpose_menu,
    reconnect,
    refine_button,
    result_link,
    settings_file,
    turntable_button,
    upload_button,
)
from triplaneturbo.ui.generate.controls import UNQUEUED, adapter_choices
from triplaneturbo.ui.generate.controls import build as build_controls
from triplaneturbo.ui.generate.form import FIELDS, LOOK, to_request
from triplaneturbo.ui.generate.page_jobs import PageJobs
from triplaneturbo.ui.generate.result import build as build_result
from triplaneturbo.ui.generate.updates import STREAMED, Updates, started

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Sketches
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.serving.uploads import Uploads
    from triplaneturbo.serving.user_history import History


LEADING = 8  # inputs before the fields of the Request: seven of the FileOptions and the browser's token


def build(
    page: gr.Blocks,
    engine: Engine,
    sessions: Sessions,
    history: History | None,
    guard: RequestLimiter,
    uploads: Uploads,
) -> gr.Dropdown:
    """Create the tab in the current Blocks; return the adapter dropdown."""
    with gr.Row(elem_id="page", equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_id="controls"):
            controls = build_controls(engine)
        with gr.Column(scale=8, min_width=320, elem_id="result"):
            limits = guard.limits
            result_view = build_result(
                engine, limits.refine != "nobody", limits.uploads != "nobody", links=history is not None
            )
    adapter = controls.fields[FIELDS.index("adapter")]
    page.load(
        lambda: adapter_choices(engine),
        None,
        adapter,
        show_progress="hidden",
        api_visibility="private",
    )
    jobs = PageJobs(engine, sessions, history, guard, controls, result_view)
    outputs = _wire(jobs)
    upload_button.wire(page, jobs, uploads, outputs)
    if history is not None:
        history_tab.wire(engine, page, sessions, history, guard, controls, result_view)
    settings_file.wire(engine, controls, result_view)
    purpose_menu.wire(controls)
    reconnect.wire(page, controls)
    return adapter


def _wire(jobs: PageJobs) -> list[Any]:
    """Wire the buttons; return the components that a generation updates."""
    engine, sessions = jobs.engine, jobs.sessions
    controls, result_view = jobs.controls, jobs.result_view
    view = result_view.history
    outputs = [controls.start, controls.stop, controls.status, result_view.view_json, result_view.facts]
    outputs += [result_view.tabs, result_view.variants, *downloads.outputs(result_view)]
    outputs += [] if controls.feedback is None else [controls.feedback]
    outputs += [result_view.pictures, view.gallery, view.selected, *view.buttons.values()]
    outputs += [result_view.refine.start, result_view.looks, *result_link.outputs(result_view)]
    inputs = [controls.forming, *controls.placing, view.token, *controls.fields]

    def generate_one(
        page: gr.Request, forming: bool, values: tuple[Any, ...], live: bool = False
    ) -> Iterator[Updates]:
        placing, token, fields = values[: LEADING - 1], values[LEADING - 1], values[LEADING:]
        sketches: Sketches = "all" if forming else "first" if live else "none"
        yield from jobs.run(
            page, token, placing, lambda session: to_request(*fields), sketches=sketches, live=live
        )

    def start(page: gr.Request, count: int, forming: bool, *values: Any) -> Iterator[Updates]:
        if count == 1:
            yield from generate_one(page, forming, values)
            return
        fields = values[LEADING:]
        yield started(engine, controls, fields[0], fields[LOOK])
        yield from choices.run_batch(jobs, page, lambda: seeds(to_request(*fields), count))

    def generate_live(page: gr.Request, forming: bool, *values: Any) -> Iterator[Updates]:
        if (values[LEADING] or "").strip():
            yield from generate_one(page, forming, values, live=True)
        else:
            yield {controls.status: gr.update()}  # to Gradio {} is a value, not "no update"

    def open_variant(page: gr.Request, *values: Any) -> Iterator[Updates]:
        yield from generate_one(page, False, values)

    def stop(page: gr.Request) -> None:
        sessions.of(page.session_hash).stop()

    # "always_last": Enter pressed during a generation is not lost.
    gr.on(
        [controls.start.click, controls.prompt.submit, controls.look.submit],
        start,
        [controls.count, *inputs],
        outputs,
        trigger_mode="always_last",
        **STREAMED,
    )
    # Each pause in typing starts at once and ends the session's running generation.
    controls.go.click(generate_live, inputs, outputs, trigger_mode="multiple", **STREAMED)
    controls.stop.click(stop, **UNQUEUED)
    selected = choices.wire(jobs, outputs)
    selected.then(open_variant, [*controls.placing, view.token, *controls.fields], outputs, **STREAMED)
    debug_images.wire(engine, sessions, jobs.guard, controls, result_view)
    ar_button.wire(controls, result_view)
    result_link.wire(controls, result_view)
    turntable_button.wire(jobs)
    for button in (refine_button, look_row):
        button.wire(jobs, outputs)
    return outputs
