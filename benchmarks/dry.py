"""Dry run of every benchmark at small sizes, on a CPU: python -m benchmarks.dry [name ...]

Runs the benchmarks one after the other in this process, prints a line for each, and exits with 1 if one fails
or does not print what it should. What needs a program or files that are missing is skipped, with the reason.
The figures of a dry run mean nothing.
"""

from __future__ import annotations

import argparse
import io
import re
import runpy
import sys
import tempfile
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from tests.helpers.browsing import CHROMIUM
from tests.helpers.parity_cases import case_files
from tests.helpers.parity_files import PARITY
from tests.helpers.paths import ROOT

FOLDER = "{folder}"  # in flags: a temporary folder
DEVICE = ("--tiny", "--device", "cpu", "--repeats", "1")


@dataclass(frozen=True)
class Dry:
    """A dry run.

    Attributes:
        flags: command-line arguments that make the benchmark small.
        prints: regular expressions, each of which has to match in the output, "^" at the start of a line.
        unavailable: why it cannot run here; empty if it can.
    """

    flags: tuple[str, ...]
    prints: tuple[str, ...]
    unavailable: str = ""


def _table(*rows: str) -> tuple[str, ...]:
    """Patterns of rows of benchmarks.prd: a name, a share and a peak."""
    return tuple(rf"^{row}.* [0-9.]+%  +[0-9.]+$" for row in rows)


STUDENT = (
    "the student's steps", "decoding", "rendering the volume", "rendering the surface", "the backward pass",
    "the optimizer",
)  # fmt: skip
STUDY = (
    "--prompts", "1", "--as", "field", "--variants", "vanilla,C = 0.3", "--steps", "1", "--path-iterations",
    "8", "--every", "1", "--views", "1", "--draws", "1", "--references", "2", "--sampling", "2", "--plot",
    f"{FOLDER}/plot.png",
)  # fmt: skip
DRY = {
    "compare": Dry(
        ("--rounds", "1", "HEAD", "raster", "2000", "64"),
        ("^HEAD and the working tree", r"^process, CPU +[0-9.]+ +[0-9.]+ +[0-9.]+$"),
        "" if (ROOT / ".git").exists() else "not a git checkout",
    ),
    "generator": Dry(("--tiny", "--repeats", "1"), ("^plain, float32", "^ours, float32")),
    "gpu": Dry(
        DEVICE,
        (
            "self-test",
            "built-in model: [0-9]+ faces",
            "reference, float32",
            "ours, float16",
            "total",
            "x as long",
            "cells apart",
            "same triangle",
        ),
    ),
    # Without time for any section: those are in the dry runs of both benchmarks.
    "gpu_session": Dry(
        (*DEVICE, "--grace", "3600", "--out", FOLDER),
        (
            "^self-test: skipped",
            "^full size: skipped",
            "^== gpu: ok, .* 4 results",
            "^== prd: ok, .* 2 results",
        ),
    ),
    "live": Dry(
        ("--repeats", "1"), ("^every step shown, page in software",), "" if CHROMIUM else "no Chromium found"
    ),
    "load": Dry(("--clients", "2", "--seconds", "3", "--sample", "1"), ("1 byte-identical", "^failures +0$")),
    "parity": Dry(
        ("--cases", "1"), ("^rgb +",), "" if case_files(PARITY) else f"no cases in {PARITY}/generator"
    ),
    "picture": Dry((FOLDER,), ("gallery.png", "first_visit.webp", "faces, simplified to")),
    "pipeline": Dry(("--count", "1"), ("^textured$", "^coarse", r"\d+ faces, \d+ B")),
    "prd": Dry(
        DEVICE,
        (
            *(f"(?s:{row}.*full size, random weights.*){row}" for row in STUDENT),
            *_table(*STUDENT, *(f"teacher {name}" for name in ("rgb", "geometry"))),
            *_table(*(f"teacher {name}" for name in ("mvdream", "richdreamer", "sd"))),
            r"(?s: per second, batch 1.*The run takes.* per second, batch 1)",
        ),
    ),
    "ptd_study": Dry(STUDY, (r"^C = 0.3, by steps: 0: [0-9.]+, 1: ", r"^\| field \| C = 0.3 \| [0-9.]+ \|")),
    "raster": Dry(("2000", "64"), ("^numba, 8 views", "^thumbnail")),
    "refine": Dry(("--count", "1", "--steps", "1"), (r"^mean +[0-9.]+ / [0-9.]+ ",)),
    "surface": Dry(
        ("--resolution", "24", "--repeats", "1", "--steps", "2"), (r"^mushroom \(small\).* the same",)
    ),
    "splatting": Dry(("--repeats", "1"), ("^cpu, ", "^ *2000 Gaussians", "^ *20000 Gaussians")),
    "unwrap": Dry(("500",), ("^ +500 |^ +[0-9]+ fast", "xatlas", "total, with normal map")),
    "volume": Dry(("--tiny",), ("^numba, ", "^torch, ", "^eikonal")),
}


def run(name: str, dry: Dry) -> str:
    """Run a benchmark; return what is wrong with it, or an empty string."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        flags = [flag.replace(FOLDER, folder) for flag in dry.flags]
        with patch.object(sys, "argv", [name, *flags]), redirect_stdout(said), redirect_stderr(said):
            try:
                runpy.run_module(f"benchmarks.{name}", run_name="__main__")
                code: object = 0
            except SystemExit as end:
                code = end.code or 0
            except Exception:
                traceback.print_exc()
                code = 1
    printed = said.getvalue()
    if code != 0:
        return f"exit code {code}\n{printed}"
    missing = [pattern for pattern in dry.prints if not re.search(pattern, printed, re.MULTILINE)]
    return f"does not print {', '.join(missing)}\n{printed}" if missing else ""


def main() -> int:
    """Run the named benchmarks, or all; return the exit code."""
    parser = argparse.ArgumentParser(description="Dry run of every benchmark.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"default: all of {', '.join(DRY)}")
    names = parser.parse_args().names or list(DRY)
    for name in names:
        if name not in DRY:
            parser.error(f"no benchmark {name!r}: use {', '.join(DRY)}")
    failed = 0
    for name in names:
        dry, start = DRY[name], time.monotonic()
        if dry.unavailable:
            print(f"{name:10} skipped: {dry.unavailable}", flush=True)
            continue
        wrong = run(name, dry)
        failed += bool(wrong)
        print(f"{name:10} {wrong or f'ok, {time.monotonic() - start:.0f} s'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
