"""Suggested looks below the result, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.helpers.launched import launched
from tests.helpers.tiny import tiny_model
from tests.helpers.visitor import Visitor, api_client
from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.serving.sessions import Session
from triplaneturbo.serving.user_history import History
from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate.controls import prompt_feedback
from triplaneturbo.ui.generate.form import FIELDS, to_fields
from triplaneturbo.ui.generate.look_row import recoloured
from triplaneturbo.ui.generate.look_suggestions import look_suggestions

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

TOKEN = "ab" * 32
PLACING = [0, "y", "model", "auto", True, "png", 0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        yield engine


def _events(page: Any, name: str) -> list[dict[str, Any]]:
    config = page.get_config_file()
    (target,) = [one["id"] for one in config["components"] if one["props"].get("elem_id") == name]
    return [one for one in config["dependencies"] if [target, "click"] in map(list, one["targets"])]


def test_a_click_recolours_the_shown_result_and_keeps_its_shape(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    with launched(
        lambda: build(engine, tmp_path / "live", history, RequestLimiter(Limits.for_host("localhost")))
    ) as page:
        visitor = Visitor(page.local_url)
        (recolour,) = _events(page, "looks")
        look = "a blue mushroom"
        (generate,) = [one for one in _events(page, "generate") if one["inputs"]]
        draft = Request("a red mushroom", seed=3, steps=1, resolution=24, texture_size=512)
        said = json.dumps(visitor.run(generate["id"], [1, False, *PLACING, TOKEN, *to_fields(draft)]))
        assert look in said  # suggested
        number = engine.domain.looks(draft.prompt).index(look)
        said = json.dumps(visitor.run(recolour["id"], [number, TOKEN, *PLACING]))
        assert "look: a blue mushroom" in said

        newest, older = history.of(TOKEN).entries()
        assert newest.request() == recoloured_of(draft, look)
        assert older.request() == draft.checked()
        assert newest.facts["faces"] == older.facts["faces"]

        client = api_client(page.local_url, tmp_path / "got")
        settings = {name: getattr(draft, name) for name in ("seed", "steps", "resolution", "texture_size")}
        _, facts = client.predict(draft.prompt, look=look, keep_shape=True, api_name="/generate", **settings)
        assert (facts["settings"]["look"], facts["settings"]["keep_shape"]) == (look, True)


def recoloured_of(draft: Request, look: str) -> Request:
    fields = dict(zip(FIELDS, to_fields(draft), strict=True))
    return Request(**fields | {"look": look, "keep_shape": True}).checked()


def test_only_drafts_of_the_loaded_model_can_be_recoloured(engine: Engine, tmp_path: Path) -> None:
    session = Session(tmp_path)
    assert look_suggestions(engine, session)["samples"] == []
    with pytest.raises(UserError, match="no result yet"):
        recoloured(engine, session, "a blue cup")
    draft = Request("a red mushroom", seed=4, look="a green mushroom")
    session.shown = draft, engine.name
    assert recoloured(engine, session, "a blue mushroom") == recoloured_of(draft, "a blue mushroom")
    assert ["a blue mushroom"] in look_suggestions(engine, session)["samples"]
    assert ["a green mushroom"] not in look_suggestions(engine, session)["samples"]
    with pytest.raises(UserError, match="The look is blank"):
        recoloured(engine, session, "\u200b")
    for shown, reason in (
        ((draft, "full"), "restart the server with --model full"),
        ((RefineRequest.of(Request("a cup"), 20), engine.name), "refined result cannot be recoloured"),
    ):
        session.shown = shown
        assert look_suggestions(engine, session)["samples"] == []
        with pytest.raises(UserError, match=reason):
            recoloured(engine, session, "a blue cup")


def test_feedback_names_unknown_words_of_the_look() -> None:
    said = prompt_feedback(VOCABULARY, "a red mushroom", "a dragon")
    assert "The look: This model does not know: &#x27;dragon&#x27;" in said
    assert "The look" not in prompt_feedback(VOCABULARY, "a dragon", "a red mushroom")
    assert 'data-state="hint"' in prompt_feedback(VOCABULARY, "a red mushroom", "")


def test_result_with_a_look_cannot_be_refined() -> None:
    with pytest.raises(UserError, match="refine it without the look"):
        RefineRequest.of(Request("a red mushroom", look="a blue mushroom"), 20).checked()
