"""The slow tests, which `make test-fast` leaves out: `tests/slow_tests.txt`, one test function per line.

The list is made from the durations of a run of the whole suite:

    make test ARGS="-n 2 --durations=0 --durations-min=0.1" > durations.log
    python -m tests.helpers.slow_tests durations.log
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.helpers.paths import ROOT

SLOW_TESTS = ROOT / "tests" / "slow_tests.txt"
_DURATION = re.compile(r"^(\d+\.\d+)s (?:call|setup|teardown)\s+(\S+)")


def read_slow_tests() -> frozenset[str]:
    """Return the slow test functions, as "tests/test_request.py::test_sizes"."""
    return frozenset(SLOW_TESTS.read_text(encoding="utf-8").split())


def function_of(node_id: str) -> str:
    """Return a test's function, without its parameters."""
    return node_id.partition("[")[0]


def slowest(lines: Iterable[str], seconds: float) -> list[str]:
    """Return the test functions to leave out, so that the others take at most `seconds` in all, sorted.

    Args:
        lines: the output of pytest with `--durations=0`. The cases of a function count together.
        seconds: limit of the sum over all processes.
    """
    durations: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        if match := _DURATION.match(line):
            durations[function_of(match[2])] += float(match[1])
    quickest_first = sorted(durations, key=lambda name: durations[name])
    total = 0.0
    for count, name in enumerate(quickest_first):
        total += durations[name]
        if total > seconds:
            return sorted(quickest_first[count:])
    return []


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("log", type=Path, help="output of pytest")
    parser.add_argument("--seconds", type=float, default=250, help="limit for the others (default 250)")
    arguments = parser.parse_args()
    names = slowest(arguments.log.read_text(encoding="utf-8").splitlines(), arguments.seconds)
    SLOW_TESTS.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(f"{len(names)} slow tests in {SLOW_TESTS}")


if __name__ == "__main__":
    main()
