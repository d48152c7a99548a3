"""ZeroGPU's decorator wraps computation if `spaces` is installed."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.request import Request
from triplaneturbo.serving import engine as engine_module
from triplaneturbo.serving import zero_gpu
from triplaneturbo.serving.engine import Engine

QUICK: dict[str, Any] = {"steps": 2, "resolution": 24, "unwrap": "none"}


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """A fake `spaces` that forks a process for each call, as the real one does, and records the calls."""
    told: list = []
    fork = multiprocessing.get_context("fork")

    def gpu(duration):
        def decorate(function):
            def called(*arguments):
                told.append(duration(*arguments))
                # What arrives has gone through bytes, both ways.
                packed, events = pickle.dumps(arguments), fork.SimpleQueue()

                def work():
                    for event in function(*pickle.loads(packed)):
                        events.put(pickle.dumps(event))
                    events.put(None)

                child = fork.Process(target=work)
                child.start()
                while (event := events.get()) is not None:
                    yield pickle.loads(event)
                child.join()

            return called

        return decorate

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    zero_gpu._spaces.cache_clear()
    yield told
    zero_gpu._spaces.cache_clear()


def test_every_mesh_uses_a_zero_gpu_call(spaces: list, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = engine_module._load
    where: list[threading.Thread] = []
    monkeypatch.setattr(
        engine_module, "_load", lambda *some: where.append(threading.current_thread()) or loading(*some)
    )
    with Engine("small", "cpu") as engine:
        for seed in range(2):
            job = engine.submit(Request("a cup", seed=seed, **QUICK))
            shown = [event.estimate for event in job.events() if event.estimate is not None]
            assert len(shown) == 2
            assert len(job.result().mesh.faces) > 100
        monkeypatch.setattr(engine.pipeline.model.generator, "decode", no_surface)
        with pytest.raises(EmptySurfaceError):
            engine.generate("a cup", seed=7, **QUICK)
    assert where == [threading.main_thread()]
    assert spaces == [10, 10, 10]


def test_reserved_seconds_grow_with_the_request_up_to_the_limit() -> None:
    one = Request("a cup", texture_size=1024)
    assert zero_gpu.seconds_for([one]) == 10
    assert zero_gpu.seconds_for([one], False, "none", True) == 10  # called as the stream is
    assert zero_gpu.seconds_for([one] * 4) == 22
    larger = [replace(one, texture_size=4096), replace(one, unwrap="xatlas"), replace(one, seed=1)]
    assert zero_gpu.seconds_for(larger) > zero_gpu.seconds_for([one] * 3)
    assert zero_gpu.seconds_for([replace(one, unwrap="xatlas")] * 8) == zero_gpu.MOST


def no_surface(*_: object) -> torch.Tensor:
    raise EmptySurfaceError


def test_nothing_is_wrapped_without_zero_gpu() -> None:
    assert zero_gpu.on_gpu(print) is print  # type: ignore[arg-type, comparison-overlap]
    assert not zero_gpu.is_zero_gpu()
