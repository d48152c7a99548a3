"""The folder that holds all visitors' results: one change at a time, never above its quota.

    root/<visitor, 64 digits>/<result, 32 digits>/result.json, thumbnail.png, pinned, <name>.glb, ...

A result's name begins with the milliseconds at which it was made, so that names sort by age; the rest of it
is random. Several threads and processes may share a root: its lock is a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.serving.folder_sizes import FolderSizes

SCHEMA = "triplaneturbo.result"
VERSION = 1
RESULT = "result.json"
PINNED = "pinned"
THUMBNAIL = "thumbnail"
FRESH = 600.0  # seconds for which a result is safe from the quota: somebody is likely to look at it
PATIENCE = 30.0  # seconds to wait for another thread or process
VISITOR_NAME = re.compile(r"[0-9a-f]{64}")
RESULT_NAME = re.compile(r"[0-9a-f]{32}")
_LEASE = ".lease-"
_GONE = ".gone-"


class ResultStore:
    """The root folder and its quota.

    Args:
        root: the folder; it is made.
        clock: tells the seconds since 1970.
        quota: bytes that all results may take together; None: any number.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time, quota: int | None = None) -> None:
        self.root = root.resolve()
        self.clock = clock
        self.quota = quota
        self._mutex = threading.RLock()
        self._lock = FileLock(self.root / ".lock", timeout=PATIENCE, thread_local=False)
        self._sizes = FolderSizes()
        with mendable(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        for gone in self.root.glob(f"{_GONE}*"):  # what a server that was killed had no time to delete
            shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes anything in the root while it is entered, in whatever process.

        Raises:
            UserError: another process does not let go, or the folder cannot be written.
        """
        with self._mutex:
            try:
                with mendable(self.root):
                    self._lock.acquire()
            except Timeout:
                raise UserError(
                    f"Another program holds the results in {self.root}; end it, or try again."
                ) from None
            try:
                yield
            finally:
                self._lock.release()

    def new_name(self) -> str:
        """A name for a result that is made now: 48 bits of time, 80 random ones."""
        return f"{int(self.clock() * 1000) & (1 << 48) - 1:012x}{secrets.token_hex(10)}"

    @contextmanager
    def lease(self, folder: Path) -> Iterator[None]:
        """While it is entered, no quota deletes the result in `folder`; whoever owns it still may.

        Raises:
            UserError: the result is gone.
        """
        lease = FileLock(folder / f"{_LEASE}{secrets.token_hex(8)}", thread_local=False)
        with self.locked():
            if not folder.is_dir():
                raise UserError("That result is gone; make it again.")
            with mendable(folder):
                lease.acquire()
        try:
            yield
        finally:
            lease.release()
            Path(lease.lock_file).unlink(missing_ok=True)

    def make(self, needed: int, own: Path | None = None) -> None:
        """Make room for `needed` bytes; to be called while it is locked.

        The oldest results go first, whosesoever they are: none that is pinned, in use or younger than ten
        minutes, and not `own`. If that would not be enough, none goes.

        Raises:
            UserError: there is not enough that may go.
        """
        if self.quota is None:
            return
        sizes = self._sizes.of(self._folders())
        excess = sum(sizes.values()) + needed - self.quota
        going = []
        for folder in sorted(sizes, key=lambda folder: folder.name):
            if excess <= 0:
                break
            if folder != own and self.age(folder) >= FRESH and self.may_go(folder):
                going.append(folder)
                excess -= sizes[folder]
        if excess > 0:
            raise UserError(
                f"The disk quota of {self.quota / 1e9:.3g} GB is used up by results that are pinned, new or"
                " in use; delete some, or try again in ten minutes."
            )
        for folder in going:
            self.remove(folder)

    def remove(self, folder: Path) -> None:
        """Take a result away at once and whole; to be called while it is locked."""
        gone = self.root / f"{_GONE}{secrets.token_hex(8)}"
        with mendable(folder):
            try:
                folder.rename(gone)
            except FileNotFoundError:
                return
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds other results
            folder.parent.rmdir()

    def age(self, folder: Path) -> float:
        """Seconds since the result in `folder` was made."""
        return self.clock() - int(folder.name[:12], 16) / 1000

    def may_go(self, folder: Path) -> bool:
        """Whether a result is surely one of ours, is not pinned and is not in use."""
        if (folder / PINNED).exists() or self._in_use(folder):
            return False
        try:
            return read(folder) is not None
        except FileNotFoundError:
            # Half-written by a server that was killed, unless there is something of which we know nothing.
            names = {entry.name for entry in os.scandir(folder)}
            return all(name.startswith((f"{THUMBNAIL}.", f".{THUMBNAIL}.", f".{RESULT}.")) for name in names)

    def _folders(self) -> list[Path]:
        """Those of all results, whole or not."""
        return [
            Path(result.path)
            for visitor in _folders_in(self.root, VISITOR_NAME)
            for result in _folders_in(visitor.path, RESULT_NAME)
        ]

    def _in_use(self, folder: Path) -> bool:
        for path in folder.glob(f"{_LEASE}*"):
            lease = FileLock(path, thread_local=False)
            try:
                lease.acquire(timeout=0)
            except Timeout:
                return True
            lease.release()  # whoever held it was killed
            path.unlink(missing_ok=True)
        return False


def read(folder: Path) -> dict[str, Any] | None:
    """What result.json says, or None if it is damaged, foreign or of a later version.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        content = json.loads((folder / RESULT).read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return None
    version = content.get("version")
    return content if isinstance(version, int) and 1 <= version <= VERSION else None


@contextmanager
def mendable(folder: Path) -> Iterator[None]:
    """Tells an OSError as the sentence of a UserError."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise UserError(
            f"Cannot write in {folder}: {error.strerror or error}; free space or choose another --outputs."
        ) from error


def _folders_in(folder: str | Path, name: re.Pattern[str]) -> list[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return [e for e in entries if name.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return []
