"""The steps of one request of the Generate tab, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")


from tests.helpers.page_jobs import PAGE, REQUEST, TOKEN
from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.sessions import Session
from triplaneturbo.ui.generate.page_jobs import PageJobs, shown_request

PLACING = [0, "y", "model", "auto", True, "png", 0]


def test_a_request_is_admitted_before_it_starts(jobs: PageJobs) -> None:
    order: list[str] = []

    @contextmanager
    def check_context() -> Iterator[None]:
        order.append("entered")
        yield
        order.append("admitted")

    def request_of(session: Session) -> Request:
        assert session is jobs.sessions.of("page")
        order.append("made")
        return REQUEST

    def on_admitted(request: Request) -> dict[Any, Any]:
        assert request == REQUEST
        order.append("on_admitted")
        return {jobs.controls.prompt: "shown"}

    hooks: dict[str, Any] = {"check_context": check_context(), "on_admitted": on_admitted}
    updates = list(jobs.run(PAGE, TOKEN, PLACING, request_of, **hooks))
    assert order == ["entered", "made", "admitted", "on_admitted"]
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
    link = jobs.result_view.link.key
    keys = [one[link] for one in updates if link in one]
    assert len(keys) > 1
    assert keys == [""] * (len(keys) - 1) + [entry.link]  # offered when no more files are written


def test_a_result_that_is_deleted_while_its_files_are_written_has_no_link(jobs: PageJobs) -> None:
    assert jobs.history is not None
    results, link, keys = jobs.history.of(TOKEN), jobs.result_view.link.key, list[str]()
    for update in jobs.run(PAGE, TOKEN, PLACING, lambda session: REQUEST):
        for entry in results.entries():
            results.delete(entry.id)
        keys += [update[link]] if link in update else []
    assert len(keys) > 1
    assert not any(keys)


@pytest.mark.parametrize("at", ["request", "placing", "limits", "check_context"])
def test_a_refused_request_changes_only_the_status(
    jobs: PageJobs, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(jobs.engine, "submit", lambda *_, **__: pytest.fail("submitted"))
    left: list[str] = []

    @contextmanager
    def check_context() -> Iterator[None]:
        try:
            yield
            if at == "check_context":
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
    (updates,) = jobs.run(PAGE, TOKEN, placing, request_of, check_context=check_context())
    assert list(updates) == [jobs.controls.status]
    assert "Invalid &lt;file&gt;." in updates[jobs.controls.status]
    assert left == [at]


def test_the_shown_result_belongs_to_the_loaded_model(tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(UserError, match="There is no result to paint; generate one first"):
        shown_request(session, "small", "paint", missing="to paint")
    session.chosen = "a result of an uploaded file"
    with pytest.raises(UserError, match="began with an uploaded file, which is not kept; upload it again"):
        shown_request(session, "small", "paint", missing="to paint")
    session.shown = REQUEST, "full"
    with pytest.raises(UserError, match="restart the server with --model full to paint it"):
        shown_request(session, "small", "paint", missing="to paint")
    assert shown_request(session, "full", "paint", missing="to paint") is REQUEST
