"""Run watcher: sends each open page the parts of the run's state that changed since its last poll.

Pages poll often while a run trains, and rarely otherwise, since another page may start one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import gradio as gr

from triplaneturbo.models.adapters import FILE, adapters
from triplaneturbo.serving.shared_files import SharedFiles
from triplaneturbo.ui.generate.controls import adapter_choices
from triplaneturbo.ui.training import running
from triplaneturbo.ui.training.finetune_form import STARTS, estimate_panel

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.training_service import RunState
    from triplaneturbo.ui.generate.updates import Updates
    from triplaneturbo.ui.training.finetune_form import FinetuneForm
    from triplaneturbo.ui.training.prompt_list import PromptSplit
    from triplaneturbo.ui.training.running import RunView

ACTIVE_POLL, IDLE_POLL = 2.0, 10.0  # seconds between polls, while a run trains and while none does


class RunWatcher:
    """Keeps open pages up to date with the engine's run.

    Args:
        form: left column of the tab.
        run_view: right column of the tab.
        runs: dropdown of earlier runs.
        adapter: adapter dropdown of the Generate tab.
        timer: triggers polls.

    Attributes:
        outputs: every component that `poll` may update.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        form: FinetuneForm,
        run_view: RunView,
        runs: gr.Dropdown,
        adapter: gr.Dropdown,
        timer: gr.Timer,
    ) -> None:
        self._engine, self._sessions = engine, sessions
        self._form, self._run_view, self._runs = form, run_view, runs
        self._adapter, self._timer = adapter, timer
        self._files = SharedFiles()
        self._lock = threading.Lock()
        self._sent: WeakKeyDictionary[Session, dict[str, Any]] = WeakKeyDictionary()
        self._estimated: WeakKeyDictionary[Session, tuple[PromptSplit | None, tuple[Any, ...]]] = (
            WeakKeyDictionary()
        )
        self.outputs = [
            run_view.status,
            *run_view.buttons.values(),
            run_view.previews,
            *run_view.plots.values(),
            run_view.curves,
            run_view.end,
        ]
        self.outputs += [
            run_view.sheet,
            run_view.scores,
            run_view.download,
            form.begin,
            form.start,
            runs,
            adapter,
            timer,
        ]
        self.outputs += [form.estimate]

    def estimate(self, page: gr.Request, prompts: PromptSplit | None, *settings: Any) -> Updates:
        """Return the current estimates of a page's form; `poll` sends refined ones.

        Args:
            prompts: None if the list is invalid.
            settings: values of the settings' controls.
        """
        session = self._sessions.of(page.session_hash)
        html = estimate_panel(self._engine, prompts, *settings)
        with self._lock:
            self._estimated[session] = prompts, settings
            self._sent.setdefault(session, {})["estimate"] = html
        return {self._form.estimate: html}

    def poll(self, page: gr.Request) -> Updates:
        """Return what changed since the page's last poll; everything for a new page."""
        state = self._engine.run_state()
        session = self._sessions.of(page.session_hash, heard=state is not None and state.active)
        run_view = self._run_view
        folder, name = (None, None) if state is None else (state.folder, state.config.name)
        active = state is not None and state.active
        finished = state is not None and (state.kept or state.state == "finished")
        previews = state.previews if state is not None else ()
        log = state.log if state is not None else ()
        panel, enabled = running.panel(state), _enabled_buttons(state)
        training = self._engine.learning()
        # Choices are read from disk, so only when a run has started, ended or been deleted.
        choices = name, active, finished, training
        # Part -> (key, function that returns its updates, called when the key has changed).
        parts: dict[str, tuple[Any, Callable[[], Updates]]] = {
            "panel": (panel, lambda: {run_view.status: panel}),
            "buttons": ((enabled, finished), lambda: self._buttons(enabled, finished)),
            "active": (active, lambda: self._activity(active)),
            "previews": ((folder, previews), lambda: {run_view.previews: self._previews(session, previews)}),
            "plots": ((folder, len(log)), lambda: self._curves(log, state.iterations if state else 0)),
            "end": ((folder, finished), lambda: self._end(session, state if finished else None)),
            "choices": (choices, lambda: self._choices(name)),
        }
        estimated = self._estimated.get(session)
        if estimated is not None:
            prompts, settings = estimated
            estimate = estimate_panel(self._engine, prompts, *settings)
            parts["estimate"] = estimate, lambda: {self._form.estimate: estimate}
        updates: Updates = {}
        with self._lock:
            sent = self._sent.setdefault(session, {})
            for part, (key, changes) in parts.items():
                if part not in sent or sent[part] != key:
                    sent[part] = key
                    updates |= changes()
        return updates or {run_view.status: gr.skip()}  # to Gradio {} is a value, not "no update"

    def _buttons(self, enabled: dict[str, bool], finished: bool) -> Updates:
        buttons = self._run_view.buttons
        updates: Updates = {buttons[name]: gr.update(interactive=on) for name, on in enabled.items()}
        label = running.DELETE if finished else running.DISCARD
        return updates | {buttons["discard"]: gr.update(value=label, interactive=enabled["discard"])}

    def _activity(self, active: bool) -> Updates:
        timer = gr.Timer(ACTIVE_POLL if active else IDLE_POLL, active=True)
        return {self._timer: timer, self._form.begin: gr.update(interactive=not active)}

    def _curves(self, log: Sequence[dict[str, Any]], iterations: int) -> Updates:
        updates: Updates = {self._run_view.curves: gr.update(visible=bool(log))}
        for title, plot in self._run_view.plots.items():
            # A plot without points has no axis limits, and one point is no line.
            points = running.table(log, title)
            visible = points["iteration"].nunique() > 1
            updates[plot] = (
                gr.LinePlot(points, x_lim=[0, iterations], visible=True)
                if visible
                else gr.LinePlot(visible=False)
            )
        return updates

    def _previews(self, session: Session, previews: tuple[Path, ...]) -> Any:
        # Newest first: a gallery keeps its scroll position when it grows.
        newest = reversed(previews)
        shown = [(self._files.give(session, path), f"iteration {int(path.stem):,}") for path in newest]
        return gr.update(value=[(str(path), words) for path, words in shown if path is not None])

    def _end(self, session: Session, state: RunState | None) -> Updates:
        run_view = self._run_view
        if state is None:
            return {run_view.end: gr.update(visible=False)}
        sheet = self._files.give(session, state.sheet) if state.sheet is not None else None
        adapter = adapters().get(state.config.name) if state.kept else None
        file_name = f"{state.config.name}{Path(FILE).suffix}"
        file = self._files.give(session, adapter, file_name) if adapter else None
        return {
            run_view.end: gr.update(visible=True),
            run_view.sheet: gr.update(value=str(sheet) if sheet else None, visible=sheet is not None),
            run_view.scores: running.score_table(state.scores),
            run_view.download: gr.update(value=str(file) if file else None, interactive=file is not None),
        }

    def _choices(self, run: str | None) -> Updates:
        start = [*STARTS, *((name, name) for name in self._engine.adapters())]
        runs = self._engine.run_names()
        return {
            self._form.start: gr.update(choices=start),
            self._adapter: adapter_choices(self._engine),
            self._runs: gr.update(choices=runs, value=run if run in runs else None),
        }


def _enabled_buttons(state: RunState | None) -> dict[str, bool]:
    """Return whether each button is enabled."""
    if state is None:
        return dict.fromkeys(("pause", "resume", "keep", "discard"), False)
    settled = not state.active or state.state == "running"
    return {
        "pause": state.state == "running",
        "resume": state.resumable,
        "keep": settled and not state.kept and state.iteration > 0,
        "discard": settled,
    }
