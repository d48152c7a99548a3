"""The jobs of the Generate tab with a tiny model, without a browser, and a request of one page to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from tests.helpers.tiny import tiny_model
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.sessions import Sessions
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.generate.controls import build as build_controls
from triplaneturbo.ui.generate.page_jobs import PageJobs
from triplaneturbo.ui.generate.result import build as build_result

TOKEN = "ab" * 32
REQUEST = Request("a cup", seed=2, steps=1, resolution=24, texture_size=512)
PAGE: Any = SimpleNamespace(session_hash="page", client=None, headers={})


@contextmanager
def page_jobs(folder: Path) -> Iterator[PageJobs]:
    """Yield the jobs of a page whose histories and files are in a folder."""
    history = History(folder / "history")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        with gr.Blocks():
            controls, view = build_controls(engine), build_result(engine, True, True, True)
        limiter = RequestLimiter(Limits.for_host("localhost"))
        yield PageJobs(engine, Sessions(folder / "live"), history, limiter, controls, view)
