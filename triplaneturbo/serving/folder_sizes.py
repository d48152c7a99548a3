"""How much lies in folders, without looking at each file each time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path


class FolderSizes:
    """Bytes in folders that hold files only, each of which is put there whole and never changed in place."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    def of(self, folders: Iterable[Path]) -> dict[Path, int]:
        """Bytes in each folder, 0 in one that is not there; those of other folders are forgotten."""
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
                with contextlib.suppress(FileNotFoundError):  # a lease that has just ended
                    size += entry.stat(follow_symlinks=False).st_size
        # Two changes within one tick of the file system's clock look like one: not relied on for a while.
        if time.time_ns() - changed > 2_000_000_000:
            self._known[folder] = changed, size
        return size
