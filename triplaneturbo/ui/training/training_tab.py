"""The Advanced tab: prompts at the left, the run that learns them at the right.

All of it is for those only who may train: every handler checks the page's key first.
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
from triplaneturbo.ui.generate.controls import QUICK
from triplaneturbo.ui.generate.updates import FOLLOWED, Updates, visitor
from triplaneturbo.ui.training import order_form, prompt_list, running
from triplaneturbo.ui.training.running import SURE, line
from triplaneturbo.ui.training.watching import REST, RunWatcher
from triplaneturbo.utils.lru_cache import LRUCache

if TYPE_CHECKING:
    from triplaneturbo.distill.corpora.prompt_list import PromptList
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Sessions
    from triplaneturbo.serving.training_access import TrainingAccess
    from triplaneturbo.ui.training.order_form import OrderForm
    from triplaneturbo.ui.training.running import RunPane

CLOSED = (
    "Fine-tuning is off on this server, since others reach it: start it with --admin-password, or for all"
    " with --admin."
)
MOST_FILES = 50  # of which the page's text is remembered
Guarded = Callable[[Callable[..., Updates]], Callable[..., Updates]]


def build(
    page: gr.Blocks, engine: Engine, sessions: Sessions, admission: TrainingAccess, adapter: gr.Dropdown
) -> None:
    """Put the tab into the Blocks that is being built.

    Args:
        adapter: the choice of adapters on the Generate tab, which learns of new ones.
    """
    if not admission.admin.offered:
        gr.HTML(line(CLOSED))
        return
    asks = admission.admin.asks
    # Otherwise the form is shown once the server has let the visitor in.
    open_to_all = not asks and not admission.admin.local_only
    key = gr.Textbox(visible="hidden", elem_id="train-key")
    with gr.Row(visible=asks, elem_id="unlock") as door:
        password = gr.Textbox(
            label="Password",
            type="password",
            info="The administrator's, to fine-tune here.",
            elem_id="password",
        )
        unlock = gr.Button("Unlock", scale=0, min_width=120, elem_id="unlock-button")
    refusal = gr.HTML(line(""), visible=not open_to_all, elem_id="unlock-status")
    with gr.Row(visible=open_to_all, elem_id="training", equal_height=False) as room:
        with gr.Column(scale=4, min_width=320, elem_id="ordering"):
            asked = order_form.build(engine)
            with gr.Accordion("Earlier runs", open=False, elem_id="train-past"):
                past = gr.Dropdown([], label="Run", elem_id="train-run")
        with gr.Column(scale=8, min_width=320, elem_id="running"):
            pane = running.build(engine)
    timer = gr.Timer(REST, active=False)
    watching = RunWatcher(engine, sessions, asked, pane, past, adapter, timer)

    def enter(page: gr.Request, typed: str, given: str | None = None) -> Updates:
        try:
            who = visitor(page)
            entered = admission.enter(given, who["address"], who["local"])
        except UserError as error:
            return {refusal: line(str(error), "error"), password: ""}
        opened: Updates = {door: gr.update(visible=False), refusal: gr.update(visible=False)}
        lines = prompt_list.of_run(engine.run_state())
        if lines and not typed:  # and where there is nothing to say, what is typed meanwhile stays
            opened[asked.prompts] = lines
        if not open_to_all:
            opened[room] = gr.update(visible=True)
        return watching.news(page) | opened | {key: entered, password: ""}

    def guarded(work: Callable[..., Updates]) -> Callable[..., Updates]:
        """A handler that does `work` for a page with a key, and tells of an error in one line."""

        def handler(page: gr.Request, key: str, *given: Any) -> Updates:
            try:
                admission.check(key)
                return work(page, *given)
            except UserError as error:
                return {asked.status: line(str(error), "error")}

        return handler

    shown = [key, door, refusal, password, room, asked.prompts, *watching.all]
    if asks:
        gr.on([unlock.click, password.submit], enter, [asked.prompts, password], shown, **QUICK)
    else:
        page.load(enter, asked.prompts, shown, show_progress="hidden", api_visibility="private")
    _wire_prompts(engine, admission, guarded, watching, asked, key)
    _wire_run(engine, guarded, watching, asked, pane, past, timer, key)
    _wire_push(engine, admission, pane, key)


def _wire_prompts(
    engine: Engine,
    admission: TrainingAccess,
    guarded: Guarded,
    watching: RunWatcher,
    asked: OrderForm,
    key: Any,
) -> None:
    """The list: typed or uploaded, and counted; and what a choice of length means."""

    files: LRUCache[tuple[str, PromptList]] = LRUCache(MOST_FILES)  # by key: the text that the page has of it

    def changed(page: gr.Request, key: str, given: str, share: float, *settings: Any) -> Updates:
        if not key:  # the page has only just been opened, and its key is on the way
            return {asked.counted: gr.skip()}
        try:
            admission.check(key)
            lines, listed = files.get(key) or ("", None)
            # What a file had twice, or left blank, is not in the text that is shown of it.
            if listed is None or lines != given:
                listed = prompt_list.from_text(given or "")
            counted = prompt_list.count(engine, listed, share)
        except UserError as error:
            news = watching.lengths(page, None, *settings)
            return news | {asked.counted: prompt_list.panel(None, str(error))}
        return watching.lengths(page, counted, *settings) | {asked.counted: prompt_list.panel(counted)}

    def uploaded(page: gr.Request, key: str, told: str, share: float, column: str | None = None) -> Updates:
        news: Updates = {}
        try:
            admission.check(key)
            if told != "kept":
                return {asked.counted: prompt_list.panel(None, told) if told else gr.skip()}
            path = admission.uploaded(key)
            choice = prompt_list.choices(path)
            if column is None:
                news = {
                    asked.column: gr.update(choices=choice, value=known_column(choice), visible=bool(choice))
                }
            listed, lines = prompt_list.from_file(path, column)
            counted = prompt_list.count(engine, listed, share)
            files.put(key, (lines, listed))
        except UserError as error:
            return news | {asked.counted: prompt_list.panel(None, str(error))}
        if not choice:
            admission.drop(key)
        return news | {asked.counted: prompt_list.panel(counted), asked.prompts: lines}

    def chosen(page: gr.Request, key: str, column: str, share: float) -> Updates:
        return uploaded(page, key, "kept", share, column)

    def preset(page: gr.Request, name: str) -> Updates:
        return dict(zip(asked.settings.values(), order_form.preset_values(engine, name), strict=True))

    settings = list(asked.settings.values())
    listing = [asked.prompts, asked.share]
    # Not at "input", which does not tell of what is pasted (Gradio 6.31).
    changes = [
        key.change,
        asked.prompts.change,
        asked.share.release,
        *(control.change for control in settings),
    ]
    gr.on(changes, changed, [key, *listing, *settings], [asked.counted, asked.estimate],
          trigger_mode="always_last", **QUICK)  # fmt: skip
    shown = [asked.column, asked.counted, asked.prompts]
    script = read(
        "upload.js",
        suffixes=",".join(SUFFIXES),
        most_bytes=MOST_BYTES,
        too_large=f"A list of prompts has at most {MOST_BYTES >> 20} MB here.",
    )
    asked.upload.click(uploaded, [key, asked.told, asked.share], shown, js=script, **QUICK)
    asked.column.input(chosen, [key, asked.column, asked.share], shown, **QUICK)
    asked.preset.input(guarded(preset), [key, asked.preset], [*settings, asked.status], **QUICK)


def _wire_run(
    engine: Engine,
    guarded: Guarded,
    watching: RunWatcher,
    asked: OrderForm,
    pane: RunPane,
    past: gr.Dropdown,
    timer: gr.Timer,
    key: Any,
) -> None:
    """The buttons, and the news while a run learns."""

    def telling(act: Callable[..., object]) -> Callable[..., Updates]:
        """A handler that does `act`, and then tells what has changed."""

        def work(page: gr.Request, *given: Any) -> Updates:
            act(*given)
            return watching.news(page) | {asked.status: line("")}

        return guarded(work)

    def begin(given: str, share: float, name: str, start: str, *settings: Any) -> None:
        counted = prompt_list.count(engine, prompt_list.from_text(given or ""), share)
        engine.begin_run(order_form.to_order(counted, name, start, *settings))

    def keep() -> None:
        engine.stop_run(keep=True)

    def discard(page: gr.Request, label: str) -> Updates:
        if label != SURE:
            return {pane.buttons["discard"]: gr.update(value=SURE)}
        engine.stop_run(keep=False)
        return watching.news(page) | {asked.status: line("")}

    shown = [asked.status, *watching.all]
    inputs = [key, asked.prompts, asked.share, asked.name, asked.start, *asked.settings.values()]
    asked.begin.click(telling(begin), inputs, shown, **QUICK)
    for name, act in {"pause": engine.pause_run, "resume": engine.resume_run, "keep": keep}.items():
        pane.buttons[name].click(telling(act), key, shown, **QUICK)
    pane.buttons["discard"].click(guarded(discard), [key, pane.buttons["discard"]], shown, **QUICK)
    past.input(telling(engine.choose_run), [key, past], shown, **QUICK)
    timer.tick(guarded(watching.news), key, shown, **QUICK)


def _wire_push(engine: Engine, admission: TrainingAccess, pane: RunPane, key: Any) -> None:
    """Push to the hub; the token is taken from the page at once, and kept nowhere."""

    def push(page: gr.Request, key: str, repository: str, token: str, private: bool) -> Iterator[Updates]:
        yield {
            pane.token: "",
            pane.push: gr.update(interactive=False),
            pane.pushed: line("Pushing ...", "running"),
        }
        try:
            admission.check(key)
            state = engine.run_state()
            if state is None or not state.kept:
                raise UserError("There is no adapter of this run in the library: keep it first.")
            config = engine.model.config
            card = publish.card(state.order, engine.name, config.world, state.scores)
            url = publish.push(repository, token, adapter_file(state.order.name), card, private)
            news = line(f"It is at {url}", "done")
        except UserError as error:
            news = line(str(error), "error")
        yield {pane.push: gr.update(interactive=True), pane.pushed: news}

    inputs = [key, pane.repository, pane.token, pane.private]
    pane.push.click(push, inputs, [pane.token, pane.push, pane.pushed], **FOLLOWED)
