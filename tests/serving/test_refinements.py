"""Refinements as jobs of an engine, with a tiny model and the toy world's teachers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.fields import mushroom
from tests.helpers.pace import until
from tests.helpers.tiny import tiny_model
from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.models.config import OPEN
from triplaneturbo.pipeline import Progress
from triplaneturbo.refine import start
from triplaneturbo.refine.memory_plan import Change, DoesNotFitError
from triplaneturbo.representations.triplane_asset import TriplaneAsset
from triplaneturbo.request import Request
from triplaneturbo.serving import refinements
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.file_options import DEFAULT_FILES
from triplaneturbo.serving.history_writer import HistoryWriter
from triplaneturbo.serving.jobs import MeshReady, Stopped, Waiting, Working, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.refine_request import RefineRequest, refinement_words
from triplaneturbo.serving.sessions import Session
from triplaneturbo.serving.user_history import History

DRAFT = Request("a red mushroom", seed=3, resolution=24, texture_size=512, steps=1)
TOKEN = "ab" * 32


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        yield engine


def test_refinement_reports_steps_previews_and_all_files(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinements, "PREVIEW_INTERVAL", 0.0)
    session, history = Session(tmp_path / "page"), History(tmp_path / "history")
    *_, draft = follow(engine, session, DRAFT)
    request = RefineRequest.of(DRAFT, 2)
    writer = HistoryWriter(engine, history, TOKEN, DEFAULT_FILES, passing=False)
    events: list[Any] = []
    with writer.following():
        for event in follow(engine, session, request):
            events.append(event)
            if isinstance(event, MeshReady):
                writer.keep(event)
    working = [event for event in events if isinstance(event, Working)]
    fractions = [event.fraction for event in working]
    assert fractions == sorted(fractions)
    first_step = next(event for event in working if event.stage == "refine")
    assert (first_step.step, first_step.steps) == (1, 2)
    assert first_step.view is not None
    last = events[-1]
    assert isinstance(draft, MeshReady)
    assert isinstance(last, MeshReady)
    assert list(last.files) == list(FORMATS)
    assert not set(last.files.values()) & set(draft.files.values())
    assert last.files["glb"].read_bytes() != draft.files["glb"].read_bytes()
    seconds = last.facts["seconds"]
    assert seconds["prepare"] > 0
    assert seconds["refine"] > 0
    assert sum(taken for name, taken in seconds.items() if name != "total") == pytest.approx(
        seconds["total"], abs=0.05
    )

    (entry,) = history.of(TOKEN).entries()
    assert refinement_words(entry.settings) == "refined 2 steps"
    assert set(entry.files) == set(FORMATS)
    assert entry.request() == engine.submit(DRAFT).request
    assert engine.again(last.request).mesh.faces.shape[0] == last.facts["faces"]
    assert not engine.refinements.running()
    # The same refinement again is the cached one.
    again = list(follow(engine, session, request, formats=("glb",)))
    assert again[-1].facts["cached"]  # type: ignore[union-attr]


def test_stop_keeps_the_result_so_far(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path / "page")
    request = RefineRequest.of(DRAFT, 50)
    last = None
    for last in follow(engine, session, request, formats=("glb",)):
        if isinstance(last, Working) and last.stage == "refine":
            session.stop()
    assert isinstance(last, MeshReady)
    settings = last.facts["settings"]
    assert 1 <= settings["stopped_after"] < 50
    assert refinement_words(settings) == f"refined {settings['stopped_after']} of 50 steps"
    assert engine.again(last.request).mesh is not None
    with pytest.raises(UserError, match="no longer in memory"):
        engine.again(RefineRequest.of(DRAFT, 50))  # the stopped result is not taken for a complete one


def test_a_failed_step_keeps_the_result_so_far(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Refiner.step

    def fail_at_the_second(refiner: Refiner) -> dict[str, float]:
        if refiner.steps == 1:
            raise UserError("The loss is not finite.")
        losses: dict[str, float] = step(refiner)
        return losses

    monkeypatch.setattr(Refiner, "step", fail_at_the_second)
    request = engine.submit(RefineRequest.of(DRAFT, 3)).result().request
    assert isinstance(request, RefineRequest)
    assert (request.stopped_after, request.stop_reason) == (1, "The loss is not finite.")


def test_one_refinement_at_a_time_and_others_are_told(engine: Engine, tmp_path: Path) -> None:
    first = engine.submit(RefineRequest.of(DRAFT, 40))
    until(engine.refinements.running)
    with pytest.raises(UserError, match=r"one at a time; try again in about \d+ s"):
        engine.submit(RefineRequest.of(DRAFT, 41))
    session = Session(tmp_path / "page")
    events = follow(engine, session, Request("a cup", seed=1, resolution=24, texture_size=512, steps=1))
    waiting = next(events)
    assert isinstance(waiting, Waiting)
    assert (waiting.ahead, waiting.refining) == (1, True)
    assert waiting.seconds is not None
    first.stop()  # before its first step there is no result
    with pytest.raises(Cancelled):
        first.result()
    assert isinstance(list(events)[-1], MeshReady)
    assert not engine.refinements.running()


def test_a_waiting_refinement_is_cancelled_by_stop(engine: Engine) -> None:
    blocker = engine.submit(Request("a hat", seed=9, texture_size=512))
    waiting = engine.submit(RefineRequest.of(DRAFT, 30))
    waiting.stop()
    with pytest.raises(Cancelled):
        waiting.result()
    blocker.result()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (RefineRequest("a cup", blend="a hat"), "A blend of two prompts cannot be refined"),
        (RefineRequest("a cup", refine_steps=0), "1 to 100000 steps, not 0"),
        (RefineRequest("a cup", refine_steps=True), "not True"),
        (RefineRequest("a cup", adapter="gone"), "gone"),
    ],
)
def test_invalid_refinements_are_refused_with_one_sentence(
    engine: Engine, tmp_path: Path, request_: RefineRequest, said: str
) -> None:
    (stopped,) = follow(engine, Session(tmp_path), request_)
    assert isinstance(stopped, Stopped)
    assert said in stopped.sentence
    assert "\n" not in stopped.sentence


def test_prompts_outside_the_toy_world_are_refused(engine: Engine, tmp_path: Path) -> None:
    request = RefineRequest.of(Request("a zebra", resolution=24, texture_size=512, steps=1), 2)
    *_, stopped = follow(engine, Session(tmp_path), request)
    assert isinstance(stopped, Stopped)
    assert "zebra" in stopped.sentence
    assert not engine.refinements.running()


def test_shortage_of_memory_names_no_options_that_visitors_lack(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> Iterator[str]:
        yield "estimating the memory"
        raise DoesNotFitError("It needs 9 GB, and the device has 8", "use 10 GB", Change("gaussians"))

    monkeypatch.setattr(start, "start", refuse)
    with pytest.raises(
        UserError, match=r"^It needs 9 GB, and the device has 8: use 10 GB, or the small model\.$"
    ):
        engine.submit(RefineRequest.of(DRAFT, 1)).result()


def test_refinements_are_single_jobs(engine: Engine) -> None:
    with pytest.raises(UserError, match="one by one"):
        engine.submit(RefineRequest.of(DRAFT, 2), DRAFT)


def test_durations_are_unknown_before_the_first_refinement_of_a_full_model(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny", domain=OPEN)
    with Engine(str(folder), device="cpu", runs=tmp_path / "runs") as engine:
        assert engine.refinements.estimate(60) is None


def test_refinement_of_a_refined_result_starts_from_its_draft() -> None:
    request = RefineRequest.of(RefineRequest.of(DRAFT, 20), 60)
    assert request == RefineRequest.of(DRAFT, 60)
    assert request != DRAFT
    assert refinement_words({}) == ""
    assert refinement_words({"refine_steps": "<b>"}) == ""


def test_the_preview_of_a_given_mesh_is_in_model_space() -> None:
    field = mushroom()
    asset = TriplaneAsset(field.planes, field.fields, frame=Frame(torch.tensor([10.0, 0, -5]), 3.0))
    request = RefineRequest("a red mushroom", resolution=48, lods=3)
    event = refinements._with_preview(Progress("refine", 0.5, 1.0, 1, 2), asset, request)
    assert event.sketch is not None
    assert float(event.sketch.vertices.abs().max()) <= 1
    assert event.sketch.lods == ()
