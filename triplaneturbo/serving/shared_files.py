"""Files of fine-tuning runs, linked into the folders of sessions so that their pages can fetch them."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from triplaneturbo.utils.atomic_files import link_atomically

if TYPE_CHECKING:
    from triplaneturbo.serving.sessions import Session


class SharedFiles:
    """Links from session folders to files elsewhere. All methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: WeakKeyDictionary[Session, dict[tuple[Path, int], Path]] = WeakKeyDictionary()

    def give(self, session: Session, source: Path, name: str = "") -> Path | None:
        """Link a file into the session's folder; the link is reused until the file is replaced.

        Args:
            session: the session.
            source: a file that is never changed in place.
            name: the download's file name; "": a random one with the suffix of `source`.

        Returns:
            The path of the link; None if the file no longer exists.
        """
        try:
            key = source, source.stat().st_mtime_ns
            with self._lock:
                links = self._links.setdefault(session, {})
                if key not in links or not links[key].is_file():
                    target = session.folder / (name or f"run-{secrets.token_hex(8)}{source.suffix}")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    links[key] = link_atomically(source, target)
                return links[key]
        except OSError:
            return None
