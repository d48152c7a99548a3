"""Loops divided among threads without barriers, so that other programs on the cores delay them little."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

CHUNK = 8192  # items per call: small enough that a thread that is descheduled leaves the rest to the others


def in_threads(work: Callable[[int, int], object], count: int, chunk: int = CHUNK) -> None:
    """Call `work(first, last)` for consecutive ranges of 0 to `count`, in as many threads as torch uses.

    Args:
        work: must release the GIL, and ranges must be independent.
        count: number of items.
        chunk: items per call.
    """
    starts = range(0, count, chunk)
    threads = min(torch.get_num_threads(), len(starts))
    if threads <= 1:
        if count:
            work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, first, min(first + chunk, count)) for first in starts]:
            done.result()
