"""Ctrl-C that lets the current step of a long command finish."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C in this context instead of raising it, so that the current step can finish.

    A second one interrupts at once. Yields a function that returns whether there was one.
    """
    previous = signal.getsignal(signal.SIGINT)
    received: list[int] = []

    def record(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, previous)
        print("\nStopping after this step; press Ctrl-C again to stop now.", file=sys.stderr)

    signal.signal(signal.SIGINT, record)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGINT, previous)
