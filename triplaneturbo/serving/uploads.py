"""Files that pages upload: one per page, in a folder that is not served, until it is read or replaced.

A page that may upload receives a key, which it sends with every upload.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path

from triplaneturbo.errors import UserError

MOST_KEYS = 1000
_NAME = re.compile(r"[^\w.-]+")


class Uploads:
    """Keys of pages that may upload, and their files. All methods are thread-safe.

    Args:
        folder: folder for the files; its creator deletes it.

    Attributes:
        suffixes: suffixes of the files.
        most: maximum number of bytes of a file.
        what: what a file is, in messages.
    """

    suffixes: tuple[str, ...]
    most: int
    what = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, Path | None] = OrderedDict()

    def issue(self) -> str:
        """Return a new key for a page. Only the latest thousand keys are valid."""
        key = secrets.token_hex(32)
        with self._lock:
            self._keys[key] = None
            expired = [self._keys.popitem(last=False)[1] for _ in range(len(self._keys) - MOST_KEYS)]
        for path in expired:
            _delete(path)
        return key

    def knows(self, key: object) -> bool:
        """Whether the key is valid."""
        with self._lock:
            return isinstance(key, str) and key in self._keys

    def check(self, key: object) -> str:
        """Return the key if it is valid.

        Raises:
            UserError: the key is invalid.
        """
        if not self.knows(key):
            raise UserError("This page may not upload files; reload it.")
        assert isinstance(key, str)
        return key

    def receive(self, key: str, name: str) -> Path:
        """Return the path at which to write an upload; the key's previous upload is deleted.

        Args:
            key: the key of the page.
            name: the name of the uploaded file, which determines the suffix.

        Raises:
            UserError: the key is invalid, the suffix is unknown, or the disk is full.
        """
        self.check(key)
        suffix = Path(name).suffix.lower()
        if suffix not in self.suffixes:
            raise UserError(f"Unknown file type; use {', '.join(self.suffixes[:-1])} or {self.suffixes[-1]}.")
        stem = _NAME.sub("-", Path(name).stem)[:60].strip("-.") or "upload"
        path = self._folder / secrets.token_hex(16) / f"{stem}{suffix}"
        try:
            path.parent.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"The {self.what} could not be saved: {error.strerror}; free disk space."
            ) from None
        with self._lock:
            before = self._keys.get(key)
            self._keys[key] = path
        _delete(before)
        return path

    def uploaded(self, key: str) -> Path:
        """Return the path of the page's uploaded file.

        Raises:
            UserError: there is none.
        """
        with self._lock:
            path = self._keys.get(key)
        if path is None or not path.is_file():
            raise UserError(f"The {self.what} no longer exists; upload it again.")
        return path

    def drop(self, key: str) -> None:
        """Delete the page's upload, if there is one."""
        with self._lock:
            path = self._keys.get(key)
            if key in self._keys:
                self._keys[key] = None
        _delete(path)


def _delete(path: Path | None) -> None:
    if path is not None:
        shutil.rmtree(path.parent, ignore_errors=True)
