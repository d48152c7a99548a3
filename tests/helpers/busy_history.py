"""A history folder that another process writes to."""

from __future__ import annotations

from pathlib import Path

from triplaneturbo.request import Request
from triplaneturbo.serving.user_history import History

TOKEN, OTHER = "t" * 43, "o" * 43


def busy(root: Path, name: str) -> None:
    """The work of one process."""
    history = History(root, quota=10_000_000)
    own, common = history.of(name * 43), history.of(OTHER)
    for number in range(12):
        entry = own.add(Request(f"{name} {number}"), {}, model="small")
        with entry.in_use():
            own.attach(entry.id, "glb", entry.prompt.encode() * 100)
        if number % 2:
            own.delete(entry.id)
        if number < 6:
            shared = common.add(Request(f"{name} {number}", seed=number), {}, model="small")
            common.pin(shared.id, number % 2 == 0)
        own.entries()
