"""Time limits that scale with the speed of the machine.

A limit only bounds how long a test waits for a condition, so a fast machine never uses it up.
"""

from __future__ import annotations

import functools
import random
import threading
import time
import zlib
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

THREADS = 4  # a browser, its page's server and the test itself run side by side
REFERENCE = 0.05  # seconds that the work takes on four idle cores of a common server
MOST = 10.0
_FRESH = 60.0  # seconds until the load is measured again

_lock = threading.Lock()
_measured = 0.0, -float("inf")  # (slowness, when)


@functools.cache
def _data() -> bytes:
    return random.Random(0).randbytes(1 << 16) * 32


def _measure() -> float:
    """Return how many times as long as on the reference machine a fixed piece of work takes now."""
    threads = [threading.Thread(target=zlib.compress, args=(_data(), 6)) for _ in range(THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / REFERENCE


def slowness() -> float:
    """Return how slow this machine is, from 1 to `MOST`: the worst measured in this process so far.

    It is measured when first asked for and again after a minute, because the load changes.
    """
    global _measured
    with _lock:
        worst, at = _measured
        if time.monotonic() - at > _FRESH:
            worst = min(max(1.0, worst, _measure()), MOST)
            _measured = worst, time.monotonic()
    return worst


def patience(seconds: float) -> float:
    """Return the seconds to allow on this machine for what takes up to `seconds` on an idle, fast one."""
    return seconds * slowness()


def until(condition: Callable[[], T], seconds: float = 60, every: float = 0.02) -> T:
    """Wait until a condition holds and return its value; fail the test after `patience(seconds)`."""
    started = time.monotonic()
    while not (value := condition()):
        if time.monotonic() - started > patience(seconds):
            pytest.fail(f"still waiting after {time.monotonic() - started:.0f} s; last value: {value!r}")
        time.sleep(every)
    return value
