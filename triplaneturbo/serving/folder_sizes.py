"""Cached sizes of folders."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path


class FolderSizes:
    """Sizes of folders that contain only files, each written atomically and never changed in place.

    A folder is scanned again only after its modification time has changed.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    def of(self, folders: Iterable[Path]) -> dict[Path, int]:
        """Return the bytes in each folder, 0 if it does not exist, and forget all other folders."""
        sizes = {folder: self._size(folder) for folder in folders}
        self._known = {folder: known for folder, known in self._known.items() if folder in sizes}
        return sizes

    def _size(self, folder: Path) -> int:
        try:
            changed = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
        known = self._known.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        size = 0
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):  # a lease file that was just removed
                    size += entry.stat(follow_symlinks=False).st_size
        # Two changes within one tick of the file system's clock look like one: do not cache recent sizes.
        if time.time_ns() - changed > 2_000_000_000:
            self._known[folder] = changed, size
        return size
