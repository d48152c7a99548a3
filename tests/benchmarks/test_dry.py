"""The dry run of the benchmarks: it knows them all and notices what fails."""

from __future__ import annotations

from benchmarks.dry import DRY, Dry, run
from tests.helpers.paths import ROOT


def test_every_benchmark_has_a_dry_run() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "dry", "results"}
    assert set(DRY) == modules


def test_missing_rows_are_detected() -> None:
    assert run("volume", Dry(("--tiny",), ("^numba, ",))) == ""
    assert run("volume", Dry(("--tiny",), ("^never",))).startswith("does not print ^never\n")


def test_without_a_gpu_the_benchmark_says_so() -> None:
    wrong = run("gpu", Dry(("--device", "cuda:77"), ()))
    assert wrong.startswith("exit code 2\n")
    assert "no device 'cuda:77'" in wrong
    assert "Traceback" not in wrong
