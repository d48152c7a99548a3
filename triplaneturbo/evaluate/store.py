"""Results of a phase as files that are keyed by a hash of their inputs.

A file is written atomically under a name that contains its key, so it either exists completely or not at
all. A run that was killed therefore resumes with the items that are missing, and an item is computed
again exactly if one of its inputs changes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically

_CHUNK = 2**20


def digest(**inputs: Any) -> str:
    """Return the key of an item: a hash of its inputs, which must be representable in JSON."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        UserError: the file cannot be read.
    """
    value = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                value.update(chunk)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; restore the file.") from None
    return value.hexdigest()


class Store:
    """The files of one phase.

    Args:
        folder: the phase's folder.
        suffix: of its files, with the dot.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self._suffix = suffix

    def path(self, key: str) -> Path:
        """Return the path of an item's file, which may not exist."""
        return self.folder / f"{key}{self._suffix}"

    def has(self, key: str) -> bool:
        """Return whether the item is finished."""
        return self.path(key).is_file()

    def read(self, key: str) -> bytes:
        """Return the bytes of a finished item.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            return self.path(key).read_bytes()
        except OSError as error:
            raise UserError(
                f"Cannot read {self.path(key)}: {error.strerror}; run the command again."
            ) from None

    def write(self, key: str, data: bytes) -> Path:
        """Store an item and return its path.

        Raises:
            UserError: the file cannot be written.
        """
        return write_atomically(self.path(key), data)
