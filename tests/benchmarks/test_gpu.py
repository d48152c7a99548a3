"""Dry run of the GPU benchmark: small sizes on a CPU."""

from __future__ import annotations

import pytest

from tests.helpers.run_benchmark import DRY, run_benchmark


@pytest.mark.slow
def test_it_runs_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run_benchmark("gpu", *DRY, capsys=capsys)
    assert code == 0
    for part in (
        "reference, float32",
        "ours, float16",
        "total",
        "x as long",
        "cells apart",
        "same triangle",
    ):
        assert part in printed


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_benchmark("gpu", "--device", "cuda:77", capsys=capsys)
    assert done.code == 2
    assert "no device 'cuda:77'" in done.err
    assert "Traceback" not in done.err
