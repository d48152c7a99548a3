"""Who of a page's visitors may train, and the lists of prompts that these have sent.

A page that may has a key, which it sends along with whatever it asks for. What it uploads lies in a folder
that nothing is served from, one file a key, until it has been read.
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
    """Keys of those who may train; every method may be called from any thread.

    Args:
        admin: says who may.
        folder: for what is uploaded; whoever made it deletes it.

    Attributes:
        most: bytes of an uploaded list.
    """

    most = MOST_BYTES

    def __init__(self, admin: Admin, folder: Path) -> None:
        self.admin = admin
        self._folder = folder
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, Path | None] = OrderedDict()

    def enter(self, password: str | None = None, address: str | None = None, local: bool = False) -> str:
        """A key for a page. The oldest of a thousand keys is forgotten.

        Raises:
            UserError: its visitor may not train.
            RateLimitError: passwords are being guessed.
        """
        self.admin.check(password, address, local)
        key = secrets.token_hex(32)
        with self._lock:
            self._keys[key] = None
            forgotten = [self._keys.popitem(last=False)[1] for _ in range(len(self._keys) - MOST_KEYS)]
        for path in forgotten:
            _delete(path)
        return key

    def check(self, key: object) -> str:
        """The key, if it is one; to be called at the top of whatever only those do who may train.

        Raises:
            UserError: it is none.
        """
        if not self.knows(key):
            if self.admin.offered:
                raise UserError(
                    "This page may not train: reload it and, where one is asked for, give the password."
                )
            self.admin.check()
        assert isinstance(key, str)
        return key

    def knows(self, key: object) -> bool:
        """Whether it is a key."""
        with self._lock:
            return isinstance(key, str) and key in self._keys

    def receive(self, key: str, name: str) -> Path:
        """The path at which to write an upload, whose suffix is that of its name; the one before it goes.

        Raises:
            UserError: it is no list of prompts by its name, the key is none, or there is no space.
        """
        self.check(key)
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(f"A list of prompts ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
        stem = _NAME.sub("-", Path(name).stem)[:60].strip("-.") or "prompts"
        path = self._folder / secrets.token_hex(16) / f"{stem}{suffix}"
        try:
            path.parent.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"The list cannot be kept: {error.strerror}; free some space.") from None
        with self._lock:
            before = self._keys.get(key)
            self._keys[key] = path
        _delete(before)
        return path

    def uploaded(self, key: str) -> Path:
        """The list that the page has sent.

        Raises:
            UserError: there is none.
        """
        with self._lock:
            path = self._keys.get(key)
        if path is None or not path.is_file():
            raise UserError("The list is gone; upload it again.")
        return path

    def drop(self, key: str) -> None:
        """Delete what was uploaded, if anything."""
        with self._lock:
            path = self._keys.get(key)
            if key in self._keys:
                self._keys[key] = None
        _delete(path)


def _delete(path: Path | None) -> None:
    if path is not None:
        shutil.rmtree(path.parent, ignore_errors=True)
