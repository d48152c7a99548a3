"""What belongs to one open page: a folder of its own for results, and the request that it waits for."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triplaneturbo.tickets import Ticket

KEPT_RESULTS = 8
# Seconds. A page that is out of sight for a while (a phone that sleeps) comes back and still has its
# downloads; one that nobody has touched for a day does not.
GRACE = 600.0
IDLE = 24 * 3600.0


class Session:
    """One page's folder and ticket; every method may be called from any thread.

    Attributes:
        folder: where its results lie; its name is random, so that nobody else can guess it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None
        self._results: OrderedDict[str, None] = OrderedDict()

    def begin(self, ticket: Ticket) -> None:
        """Wait for `ticket` from now on; what was waited for before is cancelled: the latest wins."""
        with self._lock:
            before, self._ticket = self._ticket, ticket
        if before is not None:
            before.cancel()

    def cancel(self) -> None:
        """Cancel what is waited for, if anything."""
        with self._lock:
            ticket = self._ticket
        if ticket is not None:
            ticket.cancel()

    def keep(self, name: str) -> Path:
        """The path, without suffix, for the files of the result called `name`; the oldest results go."""
        with self._lock:
            self._results[name] = None
            self._results.move_to_end(name)
            while len(self._results) > KEPT_RESULTS:
                oldest, _ = self._results.popitem(last=False)
                for file in self.folder.glob(f"{oldest}.*"):
                    file.unlink(missing_ok=True)
        return self.folder / name


class Sessions:
    """All open pages, by Gradio's name for them.

    Args:
        root: the folder that holds the sessions' folders; nothing outside of it is ever served.
        clock: tells the seconds.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Session] = {}
        self._until: dict[str, float] = {}

    def of(self, key: str | None) -> Session:
        """The session called `key`, begun now if it is new; for None a short one of its own each time."""
        with self._lock:
            self._sweep()
            name = key or secrets.token_hex(16)
            self._until[name] = self._clock() + (IDLE if key else GRACE)
            if name not in self._open:
                self._open[name] = Session(self._root / secrets.token_hex(16))
            return self._open[name]

    def leave(self, key: str | None) -> None:
        """The page is closed: cancel what it waits for; if it does not come back, its folder goes."""
        with self._lock:
            session = self._open.get(key or "")
            if session is not None:
                self._until[key or ""] = self._clock() + GRACE
            self._sweep()
        if session is not None:
            session.cancel()

    def _sweep(self) -> None:
        for key, until in list(self._until.items()):
            if self._clock() >= until:
                del self._until[key]
                shutil.rmtree(self._open.pop(key).folder, ignore_errors=True)
