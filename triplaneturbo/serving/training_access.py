"""Keys of pages that may train, and the prompt lists that these pages upload.

An authorized page receives a key, which it sends with every request. Uploads are stored in a folder that is
not served, one file per key, until they are read.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.distill.corpora.prompt_list import MOST_BYTES, SUFFIXES
from triplaneturbo.errors import UserError

if TYPE_CHECKING:
    from triplaneturbo.serving.admin import Admin

MOST_KEYS = 1000
_NAME = re.compile(r"[^\w.-]+")


class TrainingAccess:
    """Keys of pages that may train. All methods are thread-safe.

    Args:
        admin: decides who may train.
        folder: folder for uploads; its creator deletes it.

    Attributes:
        most: maximum number of bytes of an uploaded list.
    """

    most = MOST_BYTES

    def __init__(self, admin: Admin, folder: Path) -> None:
        self.admin = admin
        self._folder = folder
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, Path | None] = OrderedDict()

    def enter(self, password: str | None = None, address: str | None = None, local: bool = False) -> str:
        """Return a new key for a page. Only the latest thousand keys are valid.

        Raises:
            UserError: the visitor may not train.
            RateLimitError: too many wrong passwords.
        """
        self.admin.check(password, address, local)
        key = secrets.token_hex(32)
        with self._lock:
            self._keys[key] = None
            expired = [self._keys.popitem(last=False)[1] for _ in range(len(self._keys) - MOST_KEYS)]
        for path in expired:
            _delete(path)
        return key

    def check(self, key: object) -> str:
        """Return the key if it is valid. Call this first in every endpoint that requires training access.

        Raises:
            UserError: the key is invalid.
        """
        if not self.knows(key):
            if self.admin.offered:
                raise UserError(
                    "This page has no training access; reload it and enter the password if one is required."
                )
            self.admin.check()
        assert isinstance(key, str)
        return key

    def knows(self, key: object) -> bool:
        """Whether the key is valid."""
        with self._lock:
            return isinstance(key, str) and key in self._keys

    def receive(self, key: str, name: str) -> Path:
        """Return the path at which to write an upload; the key's previous upload is deleted.

        Args:
            key: the key of the page.
            name: the name of the uploaded file, which determines the suffix.

        Raises:
            UserError: the key is invalid, the suffix is not that of a prompt list, or the disk is full.
        """
        self.check(key)
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(f"Unknown file type; use {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
        stem = _NAME.sub("-", Path(name).stem)[:60].strip("-.") or "prompts"
        path = self._folder / secrets.token_hex(16) / f"{stem}{suffix}"
        try:
            path.parent.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"The list could not be saved: {error.strerror}; free disk space.") from None
        with self._lock:
            before = self._keys.get(key)
            self._keys[key] = path
        _delete(before)
        return path

    def uploaded(self, key: str) -> Path:
        """Return the path of the page's uploaded list.

        Raises:
            UserError: there is none.
        """
        with self._lock:
            path = self._keys.get(key)
        if path is None or not path.is_file():
            raise UserError("The list no longer exists; upload it again.")
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
