"""A run's files where a page may fetch them: in its session's folder, by names that nobody can guess."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from triplaneturbo.utils.atomic_files import link_whole

if TYPE_CHECKING:
    from triplaneturbo.serving.sessions import Session


class SharedFiles:
    """Files that were given to sessions; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: WeakKeyDictionary[Session, dict[tuple[Path, int], Path]] = WeakKeyDictionary()

    def give(self, session: Session, source: Path, name: str = "") -> Path | None:
        """The path of a file in the session's folder, the same one as long as it is not written anew.

        Args:
            source: a file that is never changed in place.
            name: what a download is called, with its suffix; "": a random one with that of `source`.

        Returns:
            None if it is gone.
        """
        try:
            mark = source, source.stat().st_mtime_ns
            with self._lock:
                given = self._given.setdefault(session, {})
                if mark not in given or not given[mark].is_file():
                    target = session.folder / (name or f"run-{secrets.token_hex(8)}{source.suffix}")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    given[mark] = link_whole(source, target)
                return given[mark]
        except OSError:
            return None
