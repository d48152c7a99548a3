"""Files that pages upload: one per page, in a folder that is not served, until it is read or replaced.

A page that may upload receives a key, which it sends with every upload.
"""

from __future__ import annotations

import hmac
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from triplaneturbo.errors import UserError

MOST_FILES = 32
"""Files of all pages together: with the largest ones of 32 MB, about 1 GB."""
LIFETIME = 3600.0  # seconds until a file that nobody has read is deleted
_NONCE = _SIGNATURE = 32  # hexadecimal digits
_NAME = re.compile(r"[^\w.-]+")


class _Upload(NamedTuple):
    """The path of a file, and the time at which its upload began."""

    path: Path
    begun: float


class Uploads:
    """Keys of pages that may upload, and their files. All methods are thread-safe.

    Uploads and new pages delete files that are older than `LIFETIME`, uploads also the oldest ones of more
    than `MOST_FILES`; a closed page deletes its own with `drop`.
    Keys take no memory: they are signed, and valid until the server ends.

    Args:
        folder: folder for the files; its creator deletes it.
        clock: returns the time in seconds.

    Attributes:
        suffixes: suffixes of the files.
        most: maximum number of bytes of a file.
        what: what a file is, in messages.
    """

    suffixes: tuple[str, ...]
    most: int
    what = "file"

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._uploads: OrderedDict[str, _Upload] = OrderedDict()  # by key, oldest first

    def issue(self) -> str:
        """Return a new key for a page; delete expired files."""
        self._expire()
        nonce = secrets.token_hex(_NONCE // 2)
        return nonce + self._signature(nonce)

    def knows(self, key: object) -> bool:
        """Whether the key is valid."""
        return (
            isinstance(key, str)
            and key.isascii()
            and hmac.compare_digest(key[_NONCE:], self._signature(key[:_NONCE]))
        )

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
        """Return the path at which to write an upload.

        The key's previous upload is deleted, and so are expired ones and the oldest ones of too many.

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
        self._expire()
        with self._lock:
            gone = [self._uploads.pop(key)] if key in self._uploads else []
            self._uploads[key] = _Upload(path, self._clock())
            while len(self._uploads) > MOST_FILES:
                gone.append(self._uploads.popitem(last=False)[1])
        for upload in gone:
            _delete(upload)
        return path

    def keeps(self, key: str, path: Path) -> bool:
        """Whether a file that is being received has not been replaced by a newer one."""
        with self._lock:
            upload = self._uploads.get(key)
        return upload is not None and upload.path == path

    def uploaded(self, key: str) -> Path:
        """Return the path of the page's uploaded file.

        Raises:
            UserError: there is none.
        """
        with self._lock:
            upload = self._uploads.get(key)
        if upload is None or not upload.path.is_file():
            raise UserError(f"The {self.what} no longer exists; upload it again.")
        return upload.path

    def drop(self, key: str) -> None:
        """Delete the page's upload, if there is one."""
        with self._lock:
            upload = self._uploads.pop(key, None)
        if upload is not None:
            _delete(upload)

    def _expire(self) -> None:
        """Delete files that are older than `LIFETIME`."""
        gone = []
        with self._lock:
            oldest = self._clock() - LIFETIME
            while self._uploads and next(iter(self._uploads.values())).begun <= oldest:
                gone.append(self._uploads.popitem(last=False)[1])
        for upload in gone:
            _delete(upload)

    def _signature(self, nonce: str) -> str:
        return hmac.digest(self._secret, nonce.encode(), "sha256").hex()[:_SIGNATURE]


def _delete(upload: _Upload) -> None:
    shutil.rmtree(upload.path.parent, ignore_errors=True)
