"""How many cores other processes use."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
INTERVAL = 0.5  # seconds; the kernel counts in hundredths
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for the disk
_GUEST = 8  # from here on, columns are counted in others already


class CpuLoad:
    """Measure the load of the machine by other processes, from one call to the next. Linux only."""

    def __init__(self) -> None:
        self._last = _read()
        self._found: float | None = None

    def others(self) -> float | None:
        """Return the cores that other processes used on average since the last call; None if unknown.

        Time in which a virtual machine's host withheld the cores counts as used. Within INTERVAL after a
        measurement, its result is returned again.
        """
        now = _read()
        if now is None or self._last is None:
            return None
        wall, all_busy, own = (new - old for new, old in zip(now, self._last, strict=True))
        if wall >= INTERVAL:
            self._last, self._found = now, max(0.0, all_busy - own) / wall
        return self._found

    def describe(self) -> str:
        """Describe the load since the last call in a sentence; "" if it is unknown."""
        cores = os.cpu_count() or 1
        others = self.others()
        if others is None:
            return ""
        slow = ": meshes take longer" if others > cores / 4 else ""
        return f"other programs use {others:.1f} of {cores} cores{slow}"


def _read() -> tuple[float, float, float] | None:
    """Return wall time, busy time of all cores, and CPU time of this process and its ended children, in s."""
    try:
        columns = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        ticks = [int(column) for column in columns][:_GUEST]
        busy = sum(count for column, count in enumerate(ticks) if column not in _IDLE)
        children = os.times()
        own = time.process_time() + children.children_user + children.children_system
        return time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), own
    except (OSError, ValueError, AttributeError):
        return None
