"""Death of this process at a chosen file write."""

from __future__ import annotations

import os
import signal


def kill_at_write(write: int) -> None:
    """Have this process killed before the given file is complete, counted from 1."""
    real, calls = os.fsync, iter(range(1, write + 1))

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if next(calls) == write:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
