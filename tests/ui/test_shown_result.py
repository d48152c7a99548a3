"""What the page does with the shown result of the history, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from tests.helpers.page_jobs import PAGE, REQUEST, TOKEN
from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.serving.sessions import Session
from triplaneturbo.serving.user_history import HistoryEntry
from triplaneturbo.ui.generate import debug_images, downloads, history_tab, result_link, turntable_button
from triplaneturbo.ui.generate.page_jobs import PageJobs

REFINED = replace(RefineRequest.of(REQUEST, 20), stopped_after=3, stop_reason="It failed.")
UPLOADED = replace(RefineRequest.of(REQUEST, 20), upload="c" * 64)
FACTS: dict[str, Any] = {
    "vertices": 8, "faces": 12, "surface_faces": 12, "components": 1, "seed": 2, "seconds": {"total": 1.0},
    "files": [], "check": "", "prompt": "a cup",
}  # fmt: skip
Press = Callable[..., Any]


@pytest.fixture
def press(jobs: PageJobs) -> Press:
    """Call the handler of an event with the values of its inputs."""
    controls, view = jobs.controls, jobs.result_view
    assert jobs.history is not None
    with gr.Blocks() as page:
        history_tab.wire(jobs.engine, page, jobs.sessions, jobs.history, jobs.guard, controls, view)
        turntable_button.wire(jobs)
        debug_images.wire(jobs.engine, jobs.sessions, jobs.guard, controls, view)

    def press(component: Any, *values: Any, event: str = "click") -> Any:
        (found,) = [one for one in page.fns.values() if (component._id, event) in one.targets]
        updates = found.fn(PAGE, *values)
        assert updates.keys() <= set(found.outputs)
        return updates

    return press


def _saved(jobs: PageJobs, request: Request, model: str = "") -> HistoryEntry:
    assert jobs.history is not None
    results = jobs.history.of(TOKEN)
    return results.attach(results.add(request, FACTS, model=model or jobs.engine.name).id, "glb", b"glTF")


def _select(jobs: PageJobs, press: Press, entry: HistoryEntry) -> Session:
    session = jobs.sessions.of("page")
    session.past = [entry.id]
    press(jobs.result_view.history.gallery, TOKEN, SimpleNamespace(index=0), event="select")
    return session


def test_a_deleted_result_offers_no_file_and_no_link(jobs: PageJobs, press: Press) -> None:
    _select(jobs, press, _saved(jobs, REQUEST))
    view = jobs.result_view
    pinned = press(view.history.buttons["pin"], TOKEN)
    assert not pinned.keys() & {*downloads.outputs(view), *result_link.outputs(view)}
    deleted = press(view.history.buttons["delete"], TOKEN)
    for button in (*view.downloads.values(), view.ar.start, view.link.start):
        assert deleted[button]["interactive"] is False
    assert all(deleted[button]["value"] is None for button in view.downloads.values())
    assert deleted[view.link.key] == deleted[view.ar.stem] == ""


@pytest.mark.parametrize("request_", [REQUEST, REFINED])
def test_turntable_and_pictures_are_of_the_shown_result(
    jobs: PageJobs, press: Press, monkeypatch: pytest.MonkeyPatch, request_: Request
) -> None:
    rendered: list[Request] = []

    def again(request: Request) -> Any:
        rendered.append(request)
        return SimpleNamespace(mesh=None)

    monkeypatch.setattr(jobs.engine, "again", again)
    monkeypatch.setattr(jobs.engine, "turntable", lambda *_: b"webp")
    monkeypatch.setattr(jobs.engine, "thumbnail", lambda *_: b"png")
    monkeypatch.setattr(jobs.engine, "pictures", lambda mesh: {"normals": b"png"})
    view = jobs.result_view
    _select(jobs, press, _saved(jobs, request_))
    assert press(view.turntable.start)[view.turntable.animation]["interactive"] is True
    assert len(press(view.tab["pictures"], event="select")[view.pictures]) == 1
    assert view.pictures not in press(view.tab["pictures"], event="select")  # they are shown
    assert rendered == [request_] * 2


@pytest.mark.parametrize(
    ("request_", "model", "reason"),
    [
        (REQUEST, "other", "The model other made this result; restart the server with --model other to ren"),
        (UPLOADED, "", "This result began with an uploaded file, which is not kept"),
        (REFINED, "", "This refined result is no longer in memory; refine it again."),
    ],
)
def test_what_cannot_be_rendered_is_one_sentence_and_has_no_pictures(
    jobs: PageJobs, press: Press, request_: Request, model: str, reason: str
) -> None:
    view = jobs.result_view
    session = _select(jobs, press, _saved(jobs, request_, model))
    session.drawn = Request("the mesh before"), jobs.engine.name
    updates = press(view.turntable.start)
    assert list(updates) == [jobs.controls.status]
    assert reason in updates[jobs.controls.status]
    assert press(view.tab["pictures"], event="select")[view.pictures] == []


def test_pictures_of_the_history_count_as_requests(
    jobs: PageJobs, press: Press, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UserError("Too many requests.")

    _select(jobs, press, _saved(jobs, REQUEST))
    monkeypatch.setattr(jobs.guard, "admit", refuse)
    monkeypatch.setattr(jobs.engine, "submit", lambda *_, **__: pytest.fail("submitted"))
    updates = press(jobs.result_view.tab["pictures"], event="select")
    assert list(updates) == [jobs.controls.status]
    assert "Too many requests." in updates[jobs.controls.status]
