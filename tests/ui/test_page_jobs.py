"""The steps that all buttons of the Generate tab share, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from tests.helpers.tiny import tiny_model
from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.sessions import Session, Sessions
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.generate.controls import build as build_controls
from triplaneturbo.ui.generate.page_jobs import PageJobs, shown_request
from triplaneturbo.ui.generate.result import build as build_result

TOKEN = "ab" * 32
PLACING = [0, "y", "model", "auto", True, "png", 0]
REQUEST = Request("a cup", seed=2, steps=1, resolution=24, texture_size=512)
PAGE: Any = SimpleNamespace(session_hash="page", client=None, headers={})


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[PageJobs]:
    history = History(tmp_path / "history")
    with Engine(str(tiny_model(tmp_path / "tiny")), device="cpu", runs=tmp_path / "runs") as engine:
        with gr.Blocks():
            controls, view = build_controls(engine), build_result(engine, True, True, True)
        limiter = RequestLimiter(Limits.for_host("localhost"))
        yield PageJobs(engine, Sessions(tmp_path / "live"), history, limiter, controls, view)


def test_a_request_is_admitted_before_it_starts(jobs: PageJobs) -> None:
    order: list[str] = []

    @contextmanager
    def admission() -> Iterator[None]:
        order.append("entered")
        yield
        order.append("admitted")

    def request_of(session: Session) -> Request:
        assert session is jobs.sessions.of("page")
        order.append("made")
        return REQUEST

    def begun(request: Request) -> dict[Any, Any]:
        assert request == REQUEST
        order.append("begun")
        return {jobs.controls.prompt: "shown"}

    updates = list(jobs.run(PAGE, TOKEN, PLACING, request_of, admission=admission(), begun=begun))
    assert order == ["entered", "made", "admitted", "begun"]
    first, last = updates[0], {name: value for one in updates for name, value in one.items()}
    assert first[jobs.controls.prompt] == "shown"
    assert "Starting" in first[jobs.controls.status]
    assert first[jobs.result_view.refine.start]["interactive"] is False
    assert "Done" in last[jobs.controls.status]
    assert last[jobs.result_view.refine.start]["interactive"] is True
    assert jobs.sessions.of("page").shown == (REQUEST.checked(), jobs.engine.name)
    assert jobs.history is not None
    (entry,) = jobs.history.of(TOKEN).entries()
    assert entry.request() == REQUEST.checked()


@pytest.mark.parametrize("at", ["request", "placing", "limits", "admission"])
def test_a_refused_request_changes_only_the_status(
    jobs: PageJobs, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(jobs.engine, "submit", lambda *_, **__: pytest.fail("submitted"))
    left: list[str] = []

    @contextmanager
    def admission() -> Iterator[None]:
        try:
            yield
            if at == "admission":
                raise UserError("Invalid <file>.")
        finally:
            left.append(at)

    def request_of(session: Session) -> Request:
        if at == "request":
            raise UserError("Invalid <file>.")
        return REQUEST

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("Invalid <file>.")

    if at == "limits":
        monkeypatch.setattr(jobs.guard, "admit", refuse)
    placing = ["Invalid <file>.", *PLACING[1:]] if at == "placing" else PLACING
    (updates,) = jobs.run(PAGE, TOKEN, placing, request_of, admission=admission())
    assert list(updates) == [jobs.controls.status]
    assert "Invalid &lt;file&gt;." in updates[jobs.controls.status]
    assert left == [at]


def test_the_shown_result_belongs_to_the_loaded_model(tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(UserError, match="There is no result to paint; generate one first"):
        shown_request(session, "small", "paint", missing="to paint")
    session.shown = REQUEST, "full"
    with pytest.raises(UserError, match="restart the server with --model full to paint it"):
        shown_request(session, "small", "paint", missing="to paint")
    assert shown_request(session, "full", "paint", missing="to paint") is REQUEST
