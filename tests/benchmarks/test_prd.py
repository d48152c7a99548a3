"""The benchmark of fine-tuning, dry: both of its tables at small sizes on a CPU."""

from __future__ import annotations

import re

import pytest

from tests.helpers.run_benchmark import DRY, run_benchmark


@pytest.mark.slow
def test_it_runs_from_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run_benchmark("prd", *DRY, capsys=capsys)
    assert code == 0
    small, full = printed.split("full size, random weights")
    for table, teachers in ((small, ("rgb", "geometry")), (full, ("mvdream", "richdreamer", "sd"))):
        parts = ["the student's steps", "decoding", "rendering the volume", "rendering the surface"]
        parts += ["the backward pass", "the optimizer", *(f"teacher {name}" for name in teachers)]
        for part in parts:
            assert re.search(rf"^{part}.* [0-9.]+%  +[0-9.]+$", table, re.MULTILINE), part
        assert " per second, batch 1" in table
    assert "The run takes" in full
