"""Loops that are divided among threads, and how OpenMP threads wait."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

from triplaneturbo.__main__ import limit_openmp_spinning
from triplaneturbo.utils.threads import in_threads


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 10, 11, 99])
def test_every_item_is_visited_once(threads: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    visits = np.zeros(count, dtype=int)

    def work(first: int, last: int) -> None:
        assert first < last
        visits[first:last] += 1

    in_threads(work, count, chunk=10)
    assert (visits == 1).all()


def test_chunks_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2, timeout=60)
    in_threads(lambda first, last: both.wait(), 20, chunk=10)


def test_errors_of_a_thread_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda first, last: 1 // first, 20, chunk=10)


@pytest.mark.parametrize(
    "chosen",
    [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "0"}],
)
def test_threads_spin_briefly_unless_the_user_chooses(
    chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for environment, expected in ((chosen, chosen), ({}, dict(zip(names, ("PASSIVE", "1000"), strict=True)))):
        for name in names:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        limit_openmp_spinning()
        assert {name: os.environ[name] for name in names if name in os.environ} == expected
