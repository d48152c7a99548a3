"""The list of slow tests."""

from __future__ import annotations

import re

from tests.helpers.paths import ROOT
from tests.helpers.slow_tests import read_slow_tests, slowest


def test_listed_tests_exist() -> None:
    missing = []
    for name in read_slow_tests():
        path, _, function = name.partition("::")
        file = ROOT / path
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if not re.search(rf"^(?:async )?def {function}\(", text, re.MULTILINE):
            missing.append(name)
    assert missing == []


def test_the_slowest_functions_are_left_out() -> None:
    log = [
        "3 passed in 9.00s",
        "2.00s call     tests/test_a.py::test_cases[1-x y]",
        "1.50s setup    tests/test_a.py::test_cases[2]",
        "3.00s call     tests/test_a.py::test_one",
        "0.50s teardown tests/b/test_b.py::test_quick",
    ]
    assert slowest(log, 7.0) == []
    assert slowest(log, 6.9) == ["tests/test_a.py::test_cases"]
    assert slowest(log, 1.0) == ["tests/test_a.py::test_cases", "tests/test_a.py::test_one"]
    assert len(slowest(log, 0.1)) == 3
