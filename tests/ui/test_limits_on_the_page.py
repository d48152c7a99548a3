"""Limits at the API endpoints: each error is one sentence, and rejected requests cost nothing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.helpers.adapter_files import installed_adapter
from tests.helpers.launched import launched
from tests.helpers.pace import patience, until
from tests.helpers.quick import load
from tests.helpers.visitor import api_client
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.ui.blocks import build

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu", queue=1) as engine:
        yield engine


@contextmanager
def _served(engine: Engine, folder: Path, limits: Limits) -> Iterator[str]:
    with launched(lambda: build(engine, folder, guard=RequestLimiter(limits))) as page:
        yield page.local_url


def _ask(client: Client, prompt: str = "a cup", **settings: Any) -> str:
    """Return the error message, or "" on success."""
    try:
        client.predict(prompt, api_name="/generate", **(QUICK | settings))
    except AppError as error:
        return str(error)
    return ""


def test_size_and_rate_limits(engine: Engine, tmp_path: Path) -> None:
    with _served(engine, tmp_path / "served", Limits(per_minute=1, resolution=64)) as url:
        program, other = (api_client(url, tmp_path / name) for name in ("one", "other"))
        assert "use at most 64" in _ask(program, resolution=80)
        assert _ask(program) == ""
        assert re.search(r"Too many requests \(limit: 1 per minute\); try again in \d+ s\.", _ask(program))
        assert _ask(other) == ""


def test_the_steps_of_an_adapter_are_limited_as_given_ones_are(engine: Engine, tmp_path: Path) -> None:
    with (
        installed_adapter("many-steps", "9"),
        _served(engine, tmp_path / "served", Limits(steps=8)) as url,
    ):
        program = api_client(url, tmp_path / "one")
        for steps in (None, 9):
            assert "The number of steps 9 exceeds this server's limit" in _ask(
                program, adapter="many-steps", steps=steps
            )
        assert _ask(program, adapter="many-steps", steps=2) == ""


def test_concurrency_limit_and_full_queue(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, begun = threading.Event(), threading.Event()
    embed = engine.pipeline.embed

    def held(prompt: str) -> Any:
        begun.set()
        go.wait(patience(60))
        return embed(prompt)

    monkeypatch.setattr(engine.pipeline, "embed", held)
    with _served(engine, tmp_path / "served", Limits()) as url, ThreadPoolExecutor() as pool:
        clients = [api_client(url, tmp_path / str(n)) for n in range(3)]
        running = pool.submit(_ask, clients[0], "a hat")
        assert begun.wait(patience(60))
        assert "This session already has an active request" in _ask(clients[0], "a house")
        waiting = pool.submit(_ask, clients[1], "a car")
        until(lambda: engine._queue._waiting)
        assert re.fullmatch(r"The queue is full; try again in \d+ s\.", _ask(clients[2], "a duck"))
        go.set()
        assert (running.result(patience(60)), waiting.result(patience(60))) == ("", "")


def test_engine_queue_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplaneturbo.serving.engine._load", load)
    with Engine("small", device="cpu", queue=7) as engine:
        assert engine._queue._size == 7


def test_full_disk_is_reported(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplaneturbo.serving.sessions.FRESH", float("inf"))
    with _served(engine, tmp_path / "served", Limits(live=1000)) as url:
        clients = [api_client(url, tmp_path / name) for name in ("one", "other", "third")]
        assert _ask(clients[0]) == ""
        before = {path: path.stat().st_size for path in (tmp_path / "served").rglob("*.glb")}
        assert len(before) == 1
        for client in clients[1:]:
            assert "used by other pages; try again in a minute" in _ask(client, "a hat")
        assert {path: path.stat().st_size for path in (tmp_path / "served").rglob("*.glb")} == before
        assert _ask(clients[0], "a hat") == ""  # its own older files are deleted
        assert len(list((tmp_path / "served").rglob("*.glb"))) == 1
