"""The GPU's benchmark, dry: all of it runs at small sizes on a CPU and prints its tables."""

from __future__ import annotations

import subprocess
import sys

from tests.dry_run import dry_run
from triplaneturbo.models import ROOT


def test_it_runs_from_end_to_end() -> None:
    printed = dry_run("gpu")
    for part in (
        "plain, float32",
        "ours, float16",
        "in all",
        "times as long",
        "cells apart",
        "same triangle",
    ):
        assert part in printed


def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cuda:77"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no device 'cuda:77'" in done.stderr
    assert "Traceback" not in done.stderr
