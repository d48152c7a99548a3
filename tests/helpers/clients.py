"""Addresses of clients, and a clock that tests set."""

from __future__ import annotations

STRANGERS, LOCAL = "0.0.0.0", "127.0.0.1"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now
