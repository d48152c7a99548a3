"""The decorator of ZeroGPU is put around what computes where `spaces` is importable, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from triplaneturbo import zero_gpu
from triplaneturbo.engine import Engine


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """A package `spaces` that tells what is decorated and called."""
    told: list = []

    def gpu(duration: int):
        def decorate(function):
            def called(*arguments):
                told.append((function.__name__, duration))
                return function(*arguments)

            return called

        return decorate

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=gpu))
    zero_gpu._spaces.cache_clear()
    yield told
    zero_gpu._spaces.cache_clear()


def test_every_mesh_is_made_with_a_lent_gpu(spaces: list) -> None:
    with Engine("small", "cpu") as engine:
        for seed in range(2):
            engine.generate("a cup", seed=seed, steps=1, resolution=24, unwrap="none")
    assert spaces == [("stream", zero_gpu.SECONDS)] * 2


def test_elsewhere_nothing_is_wrapped() -> None:
    assert zero_gpu.on_gpu(print) is print
