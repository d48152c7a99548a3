"""Compare a benchmark of an old commit with this one: python -m benchmarks.compare COMMIT pipeline --count 3

The old commit is checked out into a temporary folder (git worktree). Both run alternately in the same
environment, so that a change of the machine's load affects both alike, after a run of each that compiles its
kernels. CPU seconds count all threads of a whole process with its imports; they depend less on other programs
than wall times do. Each stage of benchmarks.pipeline and each part of benchmarks.prd is a row.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from triplaneturbo.utils.cpu_load import CpuLoad
from triplaneturbo.utils.devices import device_name

ROOT = Path(__file__).resolve().parents[1]
STAGE = re.compile(r"([a-z]\w*) +(\d+\.\d+)(?= |$)")  # as benchmarks.pipeline prints them: "texture 0.123"
TOTAL = re.compile(r"^ *(\d+\.\d+) s  ")
PART = re.compile(r"^(\S.*?) {2,}(\d+\.\d{3}) ")  # as benchmarks.prd prints them: "decoding   0.212   10.6%"


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare a benchmark of an old commit with this one.")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default 2)")
    parser.add_argument("commit", help="the old commit")
    parser.add_argument("name", help="the benchmark, e.g. pipeline")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its options")
    arguments = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {"old": {}, "new": {}}
    load = CpuLoad()
    with checkout(arguments.commit) as old:
        for folder in (old, ROOT):
            run(folder, arguments.name, arguments.flags)
        for number in range(arguments.rounds):
            # In turns which is first: caches and clocks favour the second.
            order = [("old", old), ("new", ROOT)]
            for which, folder in order if number % 2 == 0 else reversed(order):
                for row, seconds in run(folder, arguments.name, arguments.flags).items():
                    times[which].setdefault(row, []).extend(seconds)
    print(f"{arguments.commit} and the working tree, benchmarks.{arguments.name}")
    print(f"{device_name(torch.device('cpu'))}; {load.describe() or 'load unknown'}\n")
    print(f"{'median seconds':40} {'old':>8} {'new':>8} {'old/new':>8}")
    for row in [row for row in times["old"] if row in times["new"]]:
        before, after = (statistics.median(times[which][row]) for which in ("old", "new"))
        ratio = f"{before / after:8.2f}" if after else ""
        print(f"{row:40} {before:8.3f} {after:8.3f} {ratio}")
    return 0


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder, which is removed again."""
    with tempfile.TemporaryDirectory(prefix="triplaneturbo-") as temporary:
        folder = Path(temporary, "old")
        _git("worktree", "add", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def run(folder: Path, name: str, flags: list[str]) -> dict[str, list[float]]:
    """Run a benchmark in a checkout; return the seconds of each row of the table.

    Raises:
        SystemExit: it failed; its output is printed.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    used, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall, now = time.perf_counter() - start, os.times()
    if ended.returncode:
        sys.exit(f"{folder}: {' '.join(command)} failed\n{ended.stdout}{ended.stderr}")
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return {"process, wall": [wall], "process, CPU": [cpu], **rows(ended.stdout)}


def rows(printed: str) -> dict[str, list[float]]:
    """Return the seconds in the output of benchmarks.pipeline by kind and stage, of benchmarks.prd by part.

    The first mesh of each kind is left out: it includes torch's initialisation.
    """
    found: dict[str, list[float]] = {}
    kind, first = "", False
    for line in printed.splitlines():
        total = TOTAL.match(line)
        if not total:
            if part := PART.match(line):
                found.setdefault(part[1], []).append(float(part[2]))
            kind, first = line.strip(), True
            continue
        if not first:
            for stage, seconds in [("total", total[1]), *STAGE.findall(line)]:
                found.setdefault(f"{kind}: {stage}", []).append(float(seconds))
        first = False
    return found


def _git(*arguments: str) -> None:
    subprocess.run(("git", *arguments), cwd=ROOT, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
