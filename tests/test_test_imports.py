"""Test modules share code through `tests/helpers/`, not by importing from each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# In source text, so that code which a test hands to another process is read, too.
TEST_MODULE = re.compile(r"(?:from|import)\s+(?:tests(?:\.\w+)*)?\.(?:test_\w+|conftest)\b")


def borrowed(source: str) -> list[str]:
    """Return the imports of test modules in some source."""
    return TEST_MODULE.findall(source)


@pytest.mark.parametrize(
    "line",
    ["from tests.mesh.test_check import ball", "import tests.conftest", "from .test_check import ball"],
)
def test_imports_of_test_modules_are_detected(line: str) -> None:
    assert borrowed(line)


def test_no_test_imports_from_a_test_module() -> None:
    modules = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert len(modules) > 100
    found = {
        str(path.relative_to(ROOT)): names
        for path in modules
        if path != Path(__file__) and (names := borrowed(path.read_text(encoding="utf-8")))
    }
    assert found == {}
