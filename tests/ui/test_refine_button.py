"""The Refine button and the /refine endpoint, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")
from gradio_client.exceptions import AppError
from PIL import Image

from tests.helpers.launched import launched
from tests.helpers.tiny import tiny_model
from tests.helpers.visitor import Visitor, api_client
from triplaneturbo.errors import UserError
from triplaneturbo.models.config import OPEN
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.serving.sessions import Session
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate.comparison import compare
from triplaneturbo.ui.generate.refine_button import refinement_of_shown

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 1}
TOKEN = "ab" * 32


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        yield engine


@contextmanager
def _served(engine: Engine, folder: Path, limits: Limits, history: History | None = None) -> Iterator[Any]:
    with launched(lambda: build(engine, folder / "live", history, RequestLimiter(limits))) as page:
        yield page


def _by_id(page: Any, name: str) -> dict[str, Any]:
    """Return the properties of a component of the page."""
    config = page.get_config_file()["components"]
    (found,) = [one["props"] for one in config if one["props"].get("elem_id") == name]
    return found  # type: ignore[no-any-return]


def _click(page: Any, visitor: Visitor, name: str, inputs: list[Any]) -> str:
    """Click a button as the page does, and return all output as text."""
    config = page.get_config_file()
    (target,) = [one["id"] for one in config["components"] if one["props"].get("elem_id") == name]
    (event,) = [one for one in config["dependencies"] if [target, "click"] in map(list, one["targets"])]
    assert len(event["inputs"]) == len(inputs)
    events = visitor.run(event["id"], inputs)
    return json.dumps(events, ensure_ascii=False)


def test_refine_endpoint_and_button_refine_the_shown_result(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    with _served(engine, tmp_path, Limits.for_host("localhost"), history) as page:
        client = api_client(page.local_url, tmp_path / "got")
        got, facts = client.predict("a red mushroom", refine_steps=2, api_name="/refine", **QUICK)
        assert Path(got).stat().st_size == facts["files"][0]["bytes"]
        assert (facts["settings"]["refine_steps"], facts["settings"]["stopped_after"]) == (2, 0)

        visitor = Visitor(page.local_url)
        placing = [0, "y", "model", "auto", True, "png", 0]
        said = _click(page, visitor, "refine", [20, TOKEN, *placing])
        assert "There is no result to refine" in said


def test_refine_endpoint_is_closed_on_a_shared_server(engine: Engine, tmp_path: Path) -> None:
    with _served(engine, tmp_path, Limits()) as page:
        client = api_client(page.local_url, tmp_path / "got")
        with pytest.raises(AppError, match="restart the server with --refine"):
            client.predict("a red mushroom", refine_steps=2, api_name="/refine", **QUICK)
        assert not _by_id(page, "refine")["visible"]
    with _served(engine, tmp_path, Limits(refine="everybody")) as page:
        client = api_client(page.local_url, tmp_path / "got")
        with pytest.raises(AppError, match="use at most 200"):
            client.predict("a red mushroom", refine_steps=300, api_name="/refine", **QUICK)
        assert _by_id(page, "refine")["visible"]


def test_the_comparison_shows_the_draft_and_the_refined_mesh(engine: Engine, tmp_path: Path) -> None:
    page = build(engine, tmp_path)
    assert _by_id(page, "comparison")["interactive"] is False
    session, view = Session(tmp_path / "live"), SimpleNamespace(comparison="slider")
    request = RefineRequest("a cup", refine_steps=1, **QUICK)
    result = engine.submit(request).result()
    (paths,) = compare(engine, session, view, result.request).values()
    draft, refined = (Image.open(path) for path in paths)
    assert draft.size == refined.size == (512, 512)
    assert draft.tobytes() != refined.tobytes()
    assert compare(engine, session, view, request.draft()) == {}
    # The refined mesh cannot be made again.
    gone = replace(result.request, seed=77)
    assert compare(engine, session, view, gone) == {}


def test_only_results_of_the_loaded_model_can_be_refined(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(UserError, match="no result to refine"):
        refinement_of_shown(engine, session, 20)
    draft = Request("a cup", seed=4)
    session.shown = RefineRequest.of(draft, 60), engine.name
    assert refinement_of_shown(engine, session, 20.0) == RefineRequest.of(draft, 20)
    session.shown = draft, "full"
    with pytest.raises(UserError, match="restart the server with --model full"):
        refinement_of_shown(engine, session, 20)
    session.shown = draft, engine.name
    with pytest.raises(UserError, match="not None"):
        refinement_of_shown(engine, session, None)


def test_lengths_have_estimates_and_the_toy_world_says_what_it_shows(engine: Engine, tmp_path: Path) -> None:
    page = build(engine, tmp_path)
    choices = _by_id(page, "refine-steps")["choices"]
    assert [steps for _, steps in choices] == [20, 60, 200]
    assert all(label.startswith(f"{steps} steps, about ") for label, steps in choices)
    assert not _by_id(page, "refine")["interactive"]
    assert "not that it generalises" in _by_id(page, "refine-note")["value"]


def test_open_vocabulary_models_have_neither_estimates_nor_the_note(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "tiny", domain=OPEN)
    with Engine(str(folder), device="cpu", runs=tmp_path / "runs") as engine:
        page = build(engine, tmp_path / "live")
    assert [label for label, _ in _by_id(page, "refine-steps")["choices"]] == [
        "20 steps", "60 steps", "200 steps",
    ]  # fmt: skip
    assert "refine-note" not in json.dumps(page.get_config_file(), default=str)
