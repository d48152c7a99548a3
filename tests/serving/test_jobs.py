"""A single request of the page, with the built-in model."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trimesh

from tests.helpers.pace import patience
from tests.helpers.quick import load
from triplaneturbo.errors import Cancelled, EmptySurfaceError, UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.job_queue import Job
from triplaneturbo.serving.jobs import MeshReady, Stopped, Waiting, Working, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.sessions import Session, View
from triplaneturbo.ui.generate.form import FIELDS, to_fields, to_request
from triplaneturbo.ui.generate.panels import STAGES

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}
OPTIONS = (2.0, 24.0, 0, 512, "fast", True)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine:
        yield engine


def test_controls_to_request() -> None:
    request = to_request("a cup", 7.0, *OPTIONS)
    assert request == Request("a cup", seed=7, faces=None, **QUICK)
    assert type(request.seed) is type(request.steps) is int
    assert to_request(None, 0, *OPTIONS).prompt == ""


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        (None, "blank"),
        (1.5, "whole number"),
        (1e99, "0 to 4294967295"),
        (-1.0, "0 to 4294967295"),
        (float("nan"), "whole number"),
        ("7", "whole number"),
    ],
)
def test_invalid_seed_is_refused(seed: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as info:
        to_request("a cup", seed, *OPTIONS).checked()
    assert "\n" not in str(info.value)


def test_request_to_controls_round_trip() -> None:
    request = Request(
        "a cup",
        seed=7,
        faces=None,
        variation=0.25,
        variation_seed=3,
        variation_path="8:0.5",
        blend="a hat",
        blend_weight=0.75,
        **QUICK,
    )
    assert to_request(*to_fields(request)) == request
    assert len(to_fields(request)) == len(FIELDS)
    assert to_request("a cup", 7, *OPTIONS, 0.01, 0, False, 0.5, None, None, 0.5).checked().blend == ""


def test_progress_is_followed_by_files(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path / "page")
    events = list(follow(engine, session, Request("../../A Red <b>Mushroom</b>", seed=3, **QUICK)))
    working = [event for event in events if isinstance(event, Working)]
    stages = [event.stage for event in working]
    assert stages == sorted(stages, key=list(STAGES).index)  # some may be over before they could be told
    assert stages[-1] == "files"
    fractions = [event.fraction for event in working]
    assert fractions == sorted(fractions)

    made = [event for event in events if isinstance(event, MeshReady)]
    assert events[-len(FORMATS) :] == made
    first, last = made[0], made[-1]
    assert (list(first.files), first.complete) == (["glb"], False)
    assert (list(last.files), last.complete) == (list(FORMATS), True)
    assert first.view == View(first.files["glb"], 3 * first.facts["faces"])
    assert json.loads(first.view.text)["path"] == str(first.files["glb"])
    assert [event.view for event in made[1:]] == [None] * (len(FORMATS) - 1)
    glb, obj = last.files["glb"], last.files["obj"]
    assert glb.parent == obj.parent == tmp_path / "page"
    assert glb.name.startswith("a-red-b-mushroom-b-3-")
    assert (glb.suffix, obj.suffix) == (".glb", ".zip")
    assert set(glb.parent.iterdir()) == set(last.files.values())
    facts = last.facts
    assert len(trimesh.load(glb, force="mesh", process=False).faces) == facts["faces"]
    assert any(name.endswith(".obj") for name in zipfile.ZipFile(obj).namelist())
    assert [file["bytes"] for file in facts["files"]] == [p.stat().st_size for p in last.files.values()]
    assert {"vertices", "seed", "cached"} <= facts.keys()
    assert set(facts["seconds"]) == {*STAGES, "total"}


def test_truncated_prompt_is_reported(engine: Engine, tmp_path: Path) -> None:
    *_, last = follow(engine, Session(tmp_path), Request("a cup " * 100, **QUICK))
    assert isinstance(last, MeshReady)
    assert last.truncated_text.endswith("cup")


@pytest.mark.parametrize("prompt", ["", " \n\t ", "x" * 1001])
def test_invalid_prompt_stops_with_its_error(engine: Engine, tmp_path: Path, prompt: str) -> None:
    (stopped,) = follow(engine, Session(tmp_path), Request(prompt))
    assert isinstance(stopped, Stopped)
    assert stopped.sentence.startswith("The prompt ")
    assert not list(tmp_path.iterdir())


def test_empty_surface_stops_with_its_error(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        raise EmptySurfaceError

    monkeypatch.setattr("triplaneturbo.pipeline.extract", nothing)
    *_, stopped = follow(engine, Session(tmp_path), Request("a hole", **QUICK))
    assert stopped == Stopped(str(EmptySurfaceError()))


def test_unexpected_errors_hide_their_details(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("triplaneturbo.pipeline.extract", bug)
    *_, stopped = follow(engine, Session(tmp_path), Request("a bug", **QUICK))
    assert isinstance(stopped, Stopped)
    assert "ZeroDivisionError" in stopped.sentence
    assert "secret" not in stopped.sentence
    assert "secret" in capsys.readouterr().err


def test_cancelled_generation_leaves_no_file(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    events = []
    for event in follow(engine, session, Request("a cup", seed=1, **(QUICK | {"steps": 50}))):
        events.append(event)
        if isinstance(event, Working) and event.step >= 2:  # a step may pass between two events
            session.cancel()
    assert events[-1] == Stopped("")
    assert max(event.step for event in events if isinstance(event, Working)) < 50
    assert not list(tmp_path.iterdir())


def test_sketches_are_shown_and_kept(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    views = []
    request = Request("a cup", seed=11, **(QUICK | {"steps": 6}))
    for event in follow(engine, session, request, sketches="all"):
        if isinstance(event, (Working, MeshReady)) and event.view is not None:
            views.append((event.view, len(list(tmp_path.glob("sketch-*")))))
    assert [view.number for view, _ in views] == list(range(1, 8))  # six steps and the mesh
    assert [kept for _, kept in views] == [1, 2, 3, 4, 5, 6, 6]
    *_, last_sketch, mesh = [view.path for view, _ in views]
    assert len(trimesh.load(last_sketch, force="mesh").faces) > 100
    assert mesh.name.startswith("a-cup-11-")


def test_newer_request_silences_the_older_one(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    slow = follow(engine, session, Request("a boat", **(QUICK | {"steps": 50})), sketches="all")
    for event in slow:
        if isinstance(event, Working) and event.step >= 1:
            break
    *_, made = follow(engine, session, Request("a fish", **QUICK), sketches="last")
    assert isinstance(made, MeshReady)
    before = session.show(tmp_path / "nothing", 0)
    assert list(slow) == []
    after = session.show(tmp_path / "nothing", 0)
    assert (before.number, after.number) == (before.number, before.number + 1)
    assert session.show(tmp_path / "nothing", 0, Job([], engine._queue)) is None


def test_further_files_wait_for_new_requests(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    events = follow(engine, session, Request("a cup", seed=5, **QUICK), patience=60)
    first = next(event for event in events if isinstance(event, MeshReady))
    assert list(first.files) == ["glb"]
    session.begin(engine.submit(Request("a hat", seed=5, **QUICK)))
    assert list(events) == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".glb"]


def test_closing_the_events_cancels(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tickets: list[Job] = []
    submit = engine.submit
    monkeypatch.setattr(
        engine, "submit", lambda *asked, **how: tickets.append(submit(*asked, **how)) or tickets[-1]
    )
    with closing(
        follow(engine, Session(tmp_path), Request("a cup", seed=2, **(QUICK | {"steps": 50})))
    ) as events:
        next(events)
    with pytest.raises(Cancelled):
        tickets[0].result(patience(60))


def test_second_request_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplaneturbo.serving.engine._load", load)
    with Engine("small", device="cpu") as engine:
        go = threading.Event()
        embed = engine.pipeline.embed

        def held(prompt: str) -> Any:
            go.wait(patience(60))
            return embed(prompt)

        monkeypatch.setattr(engine.pipeline, "embed", held)
        first = engine.submit(Request("a hat", **QUICK))
        second = follow(engine, Session(tmp_path), Request("a cup", **QUICK))
        next(first.events())  # it is being worked on
        assert next(second) == Waiting(1)
        go.set()
        assert isinstance(list(second)[-1], MeshReady)
