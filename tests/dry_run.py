"""A benchmark, dry: at small sizes on a CPU."""

from __future__ import annotations

import subprocess
import sys

from triplaneturbo.models import ROOT


def dry_run(benchmark: str) -> str:
    """What a benchmark of `benchmarks/` prints when it runs from end to end."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", "--tiny", "--device", "cpu", "--repeats", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
