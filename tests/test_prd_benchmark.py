"""The benchmark of fine-tuning, dry: both of its tables at small sizes on a CPU."""

from __future__ import annotations

import re

import pytest

from tests.dry_run import dry_run


@pytest.mark.slow
def test_it_runs_from_end_to_end() -> None:
    printed = dry_run("prd")
    small, full = printed.split("full size, random weights")
    for table, teachers in ((small, ("rgb", "geometry")), (full, ("mvdream", "richdreamer", "sd"))):
        parts = ["the student's steps", "decoding", "rendering the volume", "rendering the surface"]
        parts += ["the backward pass", "the optimiser", *(f"teacher {name}" for name in teachers)]
        for part in parts:
            assert re.search(rf"^{part}.* [0-9.]+%  +[0-9.]+$", table, re.MULTILINE), part
        assert " a second, batch 1" in table
    assert "The run takes" in full
