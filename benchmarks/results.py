"""Results of a benchmark as JSON lines, saved as they come: a run that is cut short keeps what it has."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

say = partial(print, flush=True)
_T = TypeVar("_T")


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Add the options whose values are the arguments of `Results`."""
    parser.add_argument("--results", type=Path, metavar="FILE", help="append the figures as lines of JSON")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="skip what would begin after this many seconds"
    )


class Results:
    """A file of results and the time limit of a benchmark that consists of sections.

    Args:
        path: the file, to which lines are appended; None to save nothing.
        seconds: sections that would begin after this time are skipped.

    Attributes:
        failed: whether a section failed.
    """

    def __init__(self, path: Path | None = None, seconds: float = math.inf) -> None:
        self.path, self.failed = path, False
        self._section = ""
        self._start, self._seconds = time.monotonic(), seconds

    def add(self, name: str, **values: object) -> None:
        """Save one result of the current section, on disk at once."""
        if self.path is None:
            return
        seconds = round(time.monotonic() - self._start, 1)
        line = json.dumps({"section": self._section, "name": name, **values, "at": seconds})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def section(self, name: str, run: Callable[[], _T]) -> _T | None:
        """Run a section; return its result, or None if it fails or there is no time left.

        An error is printed and saved, and does not stop the sections after it.
        """
        self._section = name
        if time.monotonic() - self._start > self._seconds:
            say(f"\n{name}: skipped, the time is up")
            self.add("skipped")
            return None
        try:
            return run()
        except Exception as error:
            self.failed = True
            say(f"\n{name}: failed\n{traceback.format_exc()}")
            self.add("failed", error=f"{type(error).__name__}: {error}")
            return None
