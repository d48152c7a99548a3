"""A result is saved as soon as the page shows it, even if the page is closed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pace import until
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.file_options import DEFAULT_FILES
from triplaneturbo.serving.history_writer import HistoryWriter
from triplaneturbo.serving.jobs import MeshReady, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.sessions import Session
from triplaneturbo.serving.user_history import History

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}
TOKEN = "ab" * 32


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine:
        yield engine


def _made(
    engine: Engine, history: History, session: Session, prompt: str, passing: bool = False
) -> Iterator[MeshReady]:
    """Follow a request and save its result, as the Generate tab does."""
    writer = HistoryWriter(engine, history, TOKEN, DEFAULT_FILES, passing)
    patience = 0.5 if passing else 0
    with writer.following():
        for event in follow(engine, session, Request(prompt, **QUICK), patience=patience):
            if isinstance(event, MeshReady):
                writer.keep(event)
                assert not writer.refused
                yield event


def _files_in_the_end(history: History) -> set[str]:
    """Wait for all files of the only result and return their formats."""
    until(lambda: len(history.of(TOKEN).entries()[0].files) == len(FORMATS))
    (entry,) = history.of(TOKEN).entries()
    return set(entry.files)


def test_files_are_added_to_the_history_as_they_are_ready(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    count = 0
    for made in _made(engine, history, Session(tmp_path / "page"), "a cup"):
        count += 1
        (entry,) = history.of(TOKEN).entries()
        assert set(entry.files) == set(made.files) == set(list(FORMATS)[:count])
        assert entry.thumbnail is not None
        assert len(entry.facts["files"]) == count
        for name, path in made.files.items():
            assert entry.files[name].read_bytes() == path.read_bytes()
    assert count == len(FORMATS)


def test_closed_page_loses_no_file(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    events = _made(engine, history, Session(tmp_path / "page"), "a cup")
    assert not next(events).complete
    events.close()  # type: ignore[attr-defined]
    assert _files_in_the_end(history) == set(FORMATS)


def test_overtaken_result_is_kept(engine: Engine, tmp_path: Path) -> None:
    history, session = History(tmp_path / "history"), Session(tmp_path / "page")
    for made in _made(engine, history, session, "a cup"):
        assert not made.complete
        session.begin(engine.submit(Request("a hat", **QUICK)))
    assert _files_in_the_end(history) == set(FORMATS)


def test_overtaken_live_results_are_not_kept(engine: Engine, tmp_path: Path) -> None:
    history, session = History(tmp_path / "history"), Session(tmp_path / "page")
    for made in _made(engine, history, session, "a cup", passing=True):
        assert not made.complete
        assert len(history.of(TOKEN).entries()) == 1
        session.begin(engine.submit(Request("a hat", **QUICK)))
    assert history.of(TOKEN).entries() == []
    assert [made.complete for made in _made(engine, history, session, "a cup", passing=True)][-1]
    assert len(history.of(TOKEN).entries()) == 1


def test_failure_to_keep_a_result_is_reported(engine: Engine, tmp_path: Path) -> None:
    writer = HistoryWriter(
        engine, History(tmp_path / "history", quota=10), TOKEN, DEFAULT_FILES, passing=False
    )
    with writer.following():
        for event in follow(engine, Session(tmp_path / "page"), Request("a cup", **QUICK)):
            if isinstance(event, MeshReady):
                assert not writer.keep(event)
                assert writer.refused.startswith("The mesh is ready, but could not be saved to the history: ")
    assert writer.refused.count("\n") == 0
