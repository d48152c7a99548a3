"""What a page is told of the run: only what has changed since it was told last.

A page asks often while a run learns, and now and then while none does: another page may begin one.
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
from triplaneturbo.ui.generate import controls
from triplaneturbo.ui.training import running
from triplaneturbo.ui.training.order_form import NEW, told_lengths

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session, Sessions
    from triplaneturbo.serving.training_service import RunState
    from triplaneturbo.ui.generate.updates import Updates
    from triplaneturbo.ui.training.order_form import OrderForm
    from triplaneturbo.ui.training.prompt_list import Counted
    from triplaneturbo.ui.training.running import RunPane

POLL, REST = 2.0, 10.0  # seconds between looks, while a run learns and while none does


class RunWatcher:
    """Tells pages of the engine's run.

    Args:
        asked, pane: the tab's two sides.
        past: the choice of earlier runs.
        adapter: the choice of adapters on the Generate tab.
        timer: asks for news.

    Attributes:
        all: every component of which there can be news.
    """

    def __init__(
        self,
        engine: Engine,
        sessions: Sessions,
        asked: OrderForm,
        pane: RunPane,
        past: gr.Dropdown,
        adapter: gr.Dropdown,
        timer: gr.Timer,
    ) -> None:
        self._engine, self._sessions = engine, sessions
        self._asked, self._pane, self._past = asked, pane, past
        self._adapter, self._timer = adapter, timer
        self._files = SharedFiles()
        self._lock = threading.Lock()
        self._told: WeakKeyDictionary[Session, dict[str, Any]] = WeakKeyDictionary()
        self._ordered: WeakKeyDictionary[Session, tuple[Counted | None, tuple[Any, ...]]] = (
            WeakKeyDictionary()
        )
        self.all = [
            pane.status,
            *pane.buttons.values(),
            pane.previews,
            *pane.plots.values(),
            pane.curves,
            pane.end,
        ]
        self.all += [pane.sheet, pane.scores, pane.download, asked.begin, asked.start, past, adapter, timer]
        self.all += [asked.estimate]

    def lengths(self, page: gr.Request, counted: Counted | None, *settings: Any) -> Updates:
        """What is known now of how long the prompts would be learned; what is found out later will be news.

        Args:
            counted: the prompts, if any can be learned.
            settings: values of the settings' controls.
        """
        session = self._sessions.of(page.session_hash)
        told = told_lengths(self._engine, counted, *settings)
        with self._lock:
            if not self._engine.model.config.world:  # of which all is known at once
                self._ordered[session] = counted, settings
            self._told.setdefault(session, {})["lengths"] = told
        return {self._asked.estimate: told}

    def news(self, page: gr.Request) -> Updates:
        """What has changed since this page was told last; everything for a new one."""
        state = self._engine.run_state()
        session = self._sessions.of(page.session_hash, heard=state is not None and state.active)
        pane = self._pane
        folder, name = (None, None) if state is None else (state.folder, state.order.name)
        active = state is not None and state.active
        over = state is not None and (state.kept or state.state == "finished")
        previews = state.previews if state is not None else ()
        log = state.log if state is not None else ()
        panel, offered = running.panel(state), _offered(state)
        learning = self._engine.learning()
        # What can be chosen lies on disk, and is not read at each look: runs that begin, end or go change it.
        choices = name, active, over, learning
        # By what each is called: its mark, and what is told where that is another one than before.
        parts: dict[str, tuple[Any, Callable[[], Updates]]] = {
            "panel": (panel, lambda: {pane.status: panel}),
            "buttons": ((offered, over), lambda: self._buttons(offered, over)),
            "active": (active, lambda: self._activity(active)),
            "previews": ((folder, previews), lambda: {pane.previews: self._strip(session, previews)}),
            "plots": ((folder, len(log)), lambda: self._curves(log, state.iterations if state else 0)),
            "end": ((folder, over), lambda: self._end(session, state if over else None)),
            "choices": (choices, lambda: self._choices(name)),
        }
        ordered = self._ordered.get(session)
        if ordered is not None:
            counted, settings = ordered
            lengths = told_lengths(self._engine, counted, *settings)
            parts["lengths"] = lengths, lambda: {self._asked.estimate: lengths}
        news: Updates = {}
        with self._lock:
            told = self._told.setdefault(session, {})
            for part, (mark, say) in parts.items():
                if part not in told or told[part] != mark:
                    told[part] = mark
                    news |= say()
        return news or {pane.status: gr.skip()}  # nothing at all would be taken for a blank page

    def _buttons(self, offered: dict[str, bool], over: bool) -> Updates:
        buttons = self._pane.buttons
        news: Updates = {buttons[name]: gr.update(interactive=can) for name, can in offered.items()}
        label = running.DELETE if over else running.DISCARD
        return news | {buttons["discard"]: gr.update(value=label, interactive=offered["discard"])}

    def _activity(self, active: bool) -> Updates:
        timer = gr.Timer(POLL if active else REST, active=True)
        return {self._timer: timer, self._asked.begin: gr.update(interactive=not active)}

    def _curves(self, log: Sequence[dict[str, Any]], iterations: int) -> Updates:
        news: Updates = {self._pane.curves: gr.update(visible=bool(log))}
        for title, plot in self._pane.plots.items():
            # Without a point a plot's axes have no ends, and one is no line.
            points = running.table(log, title)
            drawn = points["iteration"].nunique() > 1
            news[plot] = (
                gr.LinePlot(points, x_lim=[0, iterations], visible=True)
                if drawn
                else gr.LinePlot(visible=False)
            )
        return news

    def _strip(self, session: Session, previews: tuple[Path, ...]) -> Any:
        # The newest first: a strip stays where it was scrolled to when it grows.
        newest = reversed(previews)
        shown = [(self._files.give(session, path), f"iteration {int(path.stem):,}") for path in newest]
        return gr.update(value=[(str(path), words) for path, words in shown if path is not None])

    def _end(self, session: Session, state: RunState | None) -> Updates:
        pane = self._pane
        if state is None:
            return {pane.end: gr.update(visible=False)}
        sheet = self._files.give(session, state.sheet) if state.sheet is not None else None
        learned = adapters().get(state.order.name) if state.kept else None
        called = f"{state.order.name}{Path(FILE).suffix}"
        file = self._files.give(session, learned, called) if learned else None
        return {
            pane.end: gr.update(visible=True),
            pane.sheet: gr.update(value=str(sheet) if sheet else None, visible=sheet is not None),
            pane.scores: running.scored(state.scores),
            pane.download: gr.update(value=str(file) if file else None, interactive=file is not None),
        }

    def _choices(self, run: str | None) -> Updates:
        start = [(NEW, ""), *((name, name) for name in self._engine.adapters())]
        runs = self._engine.run_names()
        return {
            self._asked.start: gr.update(choices=start),
            self._adapter: controls.known_adapters(self._engine),
            self._past: gr.update(choices=runs, value=run if run in runs else None),
        }


def _offered(state: RunState | None) -> dict[str, bool]:
    """Which buttons can be pressed."""
    if state is None:
        return dict.fromkeys(("pause", "resume", "keep", "discard"), False)
    settled = not state.active or state.state == "running"
    return {
        "pause": state.state == "running",
        "resume": state.resumable,
        "keep": settled and not state.kept and state.iteration > 0,
        "discard": settled,
    }
