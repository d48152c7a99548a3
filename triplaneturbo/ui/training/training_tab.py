"""The Advanced tab: prompts and settings on the left, the fine-tuning run on the right.

Every handler first checks the page's key, which only visitors who may train receive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from triplaneturbo.distill.corpora.prompt_list import MOST_BYTES, SUFFIXES
from triplaneturbo.distill.corpora.tables import known_column
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import publish
from triplaneturbo.models.adapters import adapter as adapter_file
from triplaneturbo.ui.assets import read
from triplaneturbo.ui.generate.controls import UNQUEUED
from triplaneturbo.ui.generate.updates import STREAMED, Updates, visitor
from triplaneturbo.ui.training import finetune_form, prompt_list, running
from triplaneturbo.ui.training.run_watcher import IDLE_POLL, RunWatcher
from triplaneturbo.ui.training.running import CONFIRM, line
from triplaneturbo.utils.lru_cache import LRUCache

if TYPE_CHECKING:
    from triplaneturbo.distill.corpora.prompt_list import PromptList
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.serving.training_access import TrainingAccess
    from triplaneturbo.ui.training.finetune_form import FinetuneForm
    from triplaneturbo.ui.training.running import RunView

CLOSED = (
    "Fine-tuning is disabled on this server, because others can reach it. Start the server with"
    " --admin-password, or with --admin to allow everyone."
)
MAX_UPLOADS = 50  # uploaded lists that are kept in memory
Guarded = Callable[[Callable[..., Updates]], Callable[..., Updates]]


def build(
    page: gr.Blocks, engine: Engine, sessions: Sessions, access: TrainingAccess, adapter: gr.Dropdown
) -> None:
    """Create the tab in the current Blocks.

    Args:
        adapter: adapter dropdown of the Generate tab, updated when a run adds an adapter.
    """
    if not access.admin.offered:
        gr.HTML(line(CLOSED))
        return
    needs_password = access.admin.asks
    # Otherwise the form is shown after the server has admitted the visitor.
    open_to_all = not needs_password and not access.admin.local_only
    key = gr.Textbox(visible="hidden", elem_id="train-key")
    with gr.Row(visible=needs_password, elem_id="unlock") as unlock_row:
        password = gr.Textbox(
            label="Password",
            type="password",
            info="The administrator's password, for fine-tuning.",
            elem_id="password",
        )
        unlock = gr.Button("Unlock", scale=0, min_width=120, elem_id="unlock-button")
    unlock_status = gr.HTML(line(""), visible=not open_to_all, elem_id="unlock-status")
    with gr.Row(visible=open_to_all, elem_id="training", equal_height=False) as form_row:
        with gr.Column(scale=4, min_width=320, elem_id="ordering"):
            form = finetune_form.build(engine)
            with gr.Accordion("Earlier runs", open=False, elem_id="train-past"):
                runs = gr.Dropdown([], label="Run", elem_id="train-run")
        with gr.Column(scale=8, min_width=320, elem_id="running"):
            run_view = running.build(engine)
    timer = gr.Timer(IDLE_POLL, active=False)
    watcher = RunWatcher(engine, sessions, form, run_view, runs, adapter, timer)

    def enter(page: gr.Request, typed: str, password_given: str | None = None) -> Updates:
        try:
            who = visitor(page)
            issued = access.enter(password_given, who["address"], who["local"])
        except UserError as error:
            return {unlock_status: line(str(error), "error"), password: ""}
        updates: Updates = {unlock_row: gr.update(visible=False), unlock_status: gr.update(visible=False)}
        lines = prompt_list.of_run(engine.run_state())
        if lines and not typed:  # otherwise what the user has typed stays
            updates[form.prompts] = lines
        if not open_to_all:
            updates[form_row] = gr.update(visible=True)
        return watcher.poll(page) | updates | {key: issued, password: ""}

    def guarded(work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Wrap a handler: check the page's key first, and show errors in the status line."""

        def handler(page: gr.Request, key: str, *values: Any) -> Updates:
            try:
                access.check(key)
                return work(page, *values)
            except UserError as error:
                return {form.status: line(str(error), "error")}

        return handler

    outputs = [key, unlock_row, unlock_status, password, form_row, form.prompts, *watcher.outputs]
    if needs_password:
        gr.on([unlock.click, password.submit], enter, [form.prompts, password], outputs, **UNQUEUED)
    else:
        page.load(enter, form.prompts, outputs, show_progress="hidden", api_visibility="private")
    _wire_prompts(engine, access, guarded, watcher, form, key)
    _wire_run(engine, guarded, watcher, form, run_view, runs, timer, key)
    _wire_push(engine, access, run_view, key)


def _wire_prompts(
    engine: Engine,
    access: TrainingAccess,
    guarded: Guarded,
    watcher: RunWatcher,
    form: FinetuneForm,
    key: Any,
) -> None:
    """Wire the prompt list, its upload, the estimates and the presets."""
    # By page key: the text shown for an uploaded list, and the list.
    uploads: LRUCache[tuple[str, PromptList]] = LRUCache(MAX_UPLOADS)

    def changed(page: gr.Request, key: str, lines: str, share: float, *settings: Any) -> Updates:
        if not key:  # the page was just opened and has no key yet
            return {form.summary: gr.skip()}
        try:
            access.check(key)
            uploaded_lines, source = uploads.get(key) or ("", None)
            # The text shown for a file lacks its blank and duplicated lines: use the list as uploaded.
            if source is None or uploaded_lines != lines:
                source = prompt_list.from_text(lines or "")
            prompts = prompt_list.split_list(engine, source, share)
        except UserError as error:
            updates = watcher.estimate(page, None, *settings)
            return updates | {form.summary: prompt_list.panel(None, str(error))}
        return watcher.estimate(page, prompts, *settings) | {form.summary: prompt_list.panel(prompts)}

    def uploaded(page: gr.Request, key: str, result: str, share: float, column: str | None = None) -> Updates:
        updates: Updates = {}
        try:
            access.check(key)
            if result != "uploaded":
                return {form.summary: prompt_list.panel(None, result) if result else gr.skip()}
            path = access.uploaded(key)
            columns = prompt_list.column_choices(path)
            if column is None:
                updates = {
                    form.column: gr.update(
                        choices=columns, value=known_column(columns), visible=bool(columns)
                    )
                }
            source, lines = prompt_list.from_file(path, column)
            prompts = prompt_list.split_list(engine, source, share)
            uploads.put(key, (lines, source))
        except UserError as error:
            return updates | {form.summary: prompt_list.panel(None, str(error))}
        if not columns:
            access.drop(key)
        return updates | {form.summary: prompt_list.panel(prompts), form.prompts: lines}

    def select_column(page: gr.Request, key: str, column: str, share: float) -> Updates:
        return uploaded(page, key, "uploaded", share, column)

    def preset(page: gr.Request, name: str) -> Updates:
        return dict(zip(form.settings.values(), finetune_form.preset_values(engine, name), strict=True))

    settings = list(form.settings.values())
    list_inputs = [form.prompts, form.share]
    # "change" rather than "input", which does not fire on paste (Gradio 6.31).
    changes = [
        key.change,
        form.prompts.change,
        form.share.release,
        *(control.change for control in settings),
    ]
    gr.on(changes, changed, [key, *list_inputs, *settings], [form.summary, form.estimate],
          trigger_mode="always_last", **UNQUEUED)  # fmt: skip
    outputs = [form.column, form.summary, form.prompts]
    script = read(
        "upload.js",
        route="gradio_api/prompts",
        suffixes=",".join(SUFFIXES),
        max_bytes=MOST_BYTES,
        too_large=f"The file is too large: prompt lists may have at most {MOST_BYTES >> 20} MB.",
    )
    form.upload.click(uploaded, [key, form.upload_result, form.share], outputs, js=script, **UNQUEUED)
    form.column.input(select_column, [key, form.column, form.share], outputs, **UNQUEUED)
    form.preset.input(guarded(preset), [key, form.preset], [*settings, form.status], **UNQUEUED)


def _wire_run(
    engine: Engine,
    guarded: Guarded,
    watcher: RunWatcher,
    form: FinetuneForm,
    run_view: RunView,
    runs: gr.Dropdown,
    timer: gr.Timer,
    key: Any,
) -> None:
    """Wire the buttons and the polling."""

    def action(act: Callable[..., object]) -> Callable[..., Updates]:
        """Return a handler that calls `act` and then polls."""

        def work(page: gr.Request, *values: Any) -> Updates:
            act(*values)
            return watcher.poll(page) | {form.status: line("")}

        return guarded(work)

    def start_run(lines: str, share: float, name: str, start: str, *settings: Any) -> None:
        prompts = prompt_list.split_list(engine, prompt_list.from_text(lines or ""), share)
        engine.begin_run(finetune_form.to_config(prompts, name, start, *settings))

    def keep() -> None:
        engine.stop_run(keep=True)

    def discard(page: gr.Request, label: str) -> Updates:
        if label != CONFIRM:
            return {run_view.buttons["discard"]: gr.update(value=CONFIRM)}
        engine.stop_run(keep=False)
        return watcher.poll(page) | {form.status: line("")}

    outputs = [form.status, *watcher.outputs]
    inputs = [key, form.prompts, form.share, form.name, form.start, *form.settings.values()]
    form.begin.click(action(start_run), inputs, outputs, **UNQUEUED)
    for name, act in {"pause": engine.pause_run, "resume": engine.resume_run, "keep": keep}.items():
        run_view.buttons[name].click(action(act), key, outputs, **UNQUEUED)
    run_view.buttons["discard"].click(
        guarded(discard), [key, run_view.buttons["discard"]], outputs, **UNQUEUED
    )
    runs.input(action(engine.choose_run), [key, runs], outputs, **UNQUEUED)
    timer.tick(guarded(watcher.poll), key, outputs, **UNQUEUED)


def _wire_push(engine: Engine, access: TrainingAccess, run_view: RunView, key: Any) -> None:
    """Wire the push to the Hub. The token is cleared from the page at once and not stored."""

    def push(page: gr.Request, key: str, repository: str, token: str, private: bool) -> Iterator[Updates]:
        yield {
            run_view.token: "",
            run_view.push: gr.update(interactive=False),
            run_view.pushed: line("Uploading …", "running"),
        }
        try:
            access.check(key)
            state = engine.run_state()
            if state is None or not state.kept:
                raise UserError("This run has no saved adapter yet: press “Stop and keep” first.")
            card = publish.card(state.config, engine.name, engine.domain.license, state.scores)
            url = publish.push(repository, token, adapter_file(state.config.name), card, private)
            status = line(f"Published at {url}", "done")
        except UserError as error:
            status = line(str(error), "error")
        yield {run_view.push: gr.update(interactive=True), run_view.pushed: status}

    inputs = [key, run_view.repository, run_view.token, run_view.private]
    run_view.push.click(push, inputs, [run_view.token, run_view.push, run_view.pushed], **STREAMED)
