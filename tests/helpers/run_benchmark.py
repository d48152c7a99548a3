"""A benchmark as its command runs it, but in this process."""

from __future__ import annotations

import runpy
from typing import NamedTuple

import pytest

DRY = ("--tiny", "--device", "cpu", "--repeats", "1")  # all of it, at small sizes


class Done(NamedTuple):
    """How it ended, and what it said."""

    code: object
    out: str
    err: str


def run_benchmark(name: str, *flags: str, capsys: pytest.CaptureFixture[str]) -> Done:
    """Run a module of `benchmarks/` with flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [name, *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return Done(end.value.code, *capsys.readouterr())
