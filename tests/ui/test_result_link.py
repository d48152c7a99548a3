"""The link of a result, without a browser: for its owner, for others, and after the result is deleted."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.helpers.launched import launched
from tests.helpers.tiny import tiny_model
from tests.helpers.visitor import Visitor
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.user_history import NOT_LINKED, History, HistoryEntry
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate.form import to_fields

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

OWNER, STRANGER = "ab" * 32, "cd" * 32
REQUEST = Request("a red mushroom", seed=3, steps=1, resolution=24, texture_size=512)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        yield engine


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history")


def _opening(page: Any) -> int:
    """Return the number of the event that lists the history and opens a link when the page is loaded."""
    events = [
        one for one in page.get_config_file()["dependencies"] if "searchParams.delete" in str(one["js"])
    ]
    (event,) = [one for one in events if len(one["inputs"]) == 2]
    return int(event["id"])


def _open(page: Any, token: str, key: object) -> str:
    """Open the page as a new visitor, and return all output as text."""
    return html.unescape(json.dumps(Visitor(page.local_url).run(_opening(page), [token, key])))


def _saved(history: History, glb: bytes = b"glTF") -> HistoryEntry:
    results, facts = history.of(OWNER), {"faces": 12, "seconds": {"total": 1.0}}
    return results.attach(results.add(REQUEST, facts, model="small").id, "glb", glb)


def test_a_new_result_has_a_link_that_opens_it(engine: Engine, tmp_path: Path, history: History) -> None:
    with launched(lambda: build(engine, tmp_path / "history" / "live", history)) as page:
        config = page.get_config_file()
        (start,) = [one["id"] for one in config["components"] if one["props"].get("elem_id") == "generate"]
        (generate,) = [
            one
            for one in config["dependencies"]
            if [start, "click"] in map(list, one["targets"]) and one["inputs"]
        ]
        inputs = [1, False, 0, "y", "model", "auto", True, "png", 0, OWNER, *to_fields(REQUEST)]
        said = json.dumps(Visitor(page.local_url).run(generate["id"], inputs))
        (entry,) = history.of(OWNER).entries()
        assert entry.link in said
        for _ in range(2):  # also after a reload
            opened = _open(page, OWNER, entry.link)
            assert str(entry.files["glb"]) in opened
            assert entry.link in opened
            assert NOT_LINKED not in opened
        assert str(entry.files["glb"]) not in _open(page, OWNER, None)  # without a link


def test_strangers_and_expired_or_hostile_links_get_the_same_sentence(
    engine: Engine, tmp_path: Path, history: History
) -> None:
    entry, expired = _saved(history), _saved(history)
    history.of(OWNER).delete(expired.id)
    secrets = [REQUEST.prompt, entry.id, entry.name, str(entry.folder)]
    with launched(lambda: build(engine, tmp_path / "history" / "live", history)) as page:
        answers = [_open(page, STRANGER, key) for key in (entry.link, expired.link, entry.id, "f" * 32)]
        hostile = ["../../etc/passwd", "<script>alert(1)</script>", "x" * 5000, {"a": 1}, 7, ""]
        answers += [_open(page, OWNER, key) for key in (expired.link, *hostile)]
        for answer in answers:
            assert NOT_LINKED in answer
            assert "<script>" not in answer
        for answer in answers[:4]:
            assert not [secret for secret in secrets if secret in answer]
        assert NOT_LINKED not in _open(page, "no token", entry.link)


def test_without_a_history_there_are_no_links(engine: Engine, tmp_path: Path) -> None:
    config = build(engine, tmp_path).get_config_file()
    (button,) = [one for one in config["components"] if one["props"].get("elem_id") == "copy-link"]
    assert button["props"]["visible"] is False
