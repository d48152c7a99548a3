"""Result store: the folder with all visitors' results, with a lock and a disk quota.

    root/<visitor, 64 digits>/<result, 32 digits>/result.json, thumbnail.png, pinned, <name>.glb, ...

A result's name starts with its creation time in milliseconds, so that names sort by age; the rest is random.
Several threads and processes may share a root, which is protected by a lock file.
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
FRESH = 600.0  # seconds during which a new result is exempt from the quota: somebody probably looks at it
LOCK_TIMEOUT = 30.0  # seconds
VISITOR_NAME = re.compile(r"[0-9a-f]{64}")
RESULT_NAME = re.compile(r"[0-9a-f]{32}")
_LEASE = ".lease-"
_TRASH = ".gone-"
RESULT_MISSING = "This result no longer exists; generate it again."


class ResultStore:
    """The root folder of all results and its quota.

    Args:
        root: the folder; created if missing.
        clock: returns the seconds since 1970.
        quota: maximum number of bytes of all results together; None: unlimited.

    Raises:
        UserError: the folder cannot be created or written.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time, quota: int | None = None) -> None:
        self.root = root.resolve()
        self.clock = clock
        self.quota = quota
        self._mutex = threading.RLock()
        self._lock = FileLock(self.root / ".lock", timeout=LOCK_TIMEOUT, thread_local=False)
        self._sizes = FolderSizes()
        with as_user_error(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        for trash in self.root.glob(f"{_TRASH}*"):  # left behind by a server that was killed
            shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the root, across threads and processes.

        Raises:
            UserError: another process does not release the lock, or the folder cannot be written.
        """
        with self._mutex:
            try:
                with as_user_error(self.root):
                    self._lock.acquire()
            except Timeout:
                raise UserError(
                    f"Another program has locked the results in {self.root}; stop it, or try again."
                ) from None
            try:
                yield
            finally:
                self._lock.release()

    def new_name(self) -> str:
        """Return a name for a new result: 48 bits of time and 80 random bits, in hexadecimal."""
        return f"{int(self.clock() * 1000) & (1 << 48) - 1:012x}{secrets.token_hex(10)}"

    @contextmanager
    def lease(self, folder: Path) -> Iterator[None]:
        """Protect the result in `folder` from deletion by the quota; its owner can still delete it.

        Raises:
            UserError: the result no longer exists.
        """
        lease = FileLock(folder / f"{_LEASE}{secrets.token_hex(8)}", thread_local=False)
        with self.locked():
            if not folder.is_dir():
                raise UserError(RESULT_MISSING)
            with as_user_error(folder):
                lease.acquire()
        try:
            yield
        finally:
            lease.release()
            Path(lease.lock_file).unlink(missing_ok=True)

    def free_space(self, needed: int, own: Path | None = None) -> None:
        """Delete results until `needed` bytes fit into the quota; the caller must hold the lock.

        The oldest results of all visitors are deleted first, except those that are pinned, in use, younger
        than ten minutes, or `own`. If that does not suffice, nothing is deleted.

        Raises:
            UserError: not enough results can be deleted.
        """
        if self.quota is None:
            return
        sizes = self._sizes.of(self._folders())
        excess = sum(sizes.values()) + needed - self.quota
        to_delete = []
        for folder in sorted(sizes, key=lambda folder: folder.name):
            if excess <= 0:
                break
            if folder != own and self.age(folder) >= FRESH and self.is_removable(folder):
                to_delete.append(folder)
                excess -= sizes[folder]
        if excess > 0:
            raise UserError(
                f"The disk quota of {self.quota / 1e9:.3g} GB is exhausted by results that are pinned, new or"
                " in use; delete some, or try again in ten minutes."
            )
        for folder in to_delete:
            self.remove(folder)

    def remove(self, folder: Path) -> None:
        """Delete a result atomically; the caller must hold the lock."""
        trash = self.root / f"{_TRASH}{secrets.token_hex(8)}"
        with as_user_error(folder):
            try:
                folder.rename(trash)
            except FileNotFoundError:
                return
        shutil.rmtree(trash, ignore_errors=True)
        with contextlib.suppress(OSError):  # the visitor has other results
            folder.parent.rmdir()

    def age(self, folder: Path) -> float:
        """Return the seconds since the result in `folder` was created."""
        return self.clock() - int(folder.name[:12], 16) / 1000

    def is_removable(self, folder: Path) -> bool:
        """Whether a folder is a known result that is neither pinned nor in use."""
        if (folder / PINNED).exists() or self._in_use(folder):
            return False
        try:
            return read(folder) is not None
        except FileNotFoundError:
            # Half-written by a server that was killed, unless it contains unknown files.
            names = {entry.name for entry in os.scandir(folder)}
            return all(name.startswith((f"{THUMBNAIL}.", f".{THUMBNAIL}.", f".{RESULT}.")) for name in names)

    def _folders(self) -> list[Path]:
        """The folders of all results, complete or not."""
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
            lease.release()  # its process was killed
            path.unlink(missing_ok=True)
        return False


def read(folder: Path) -> dict[str, Any] | None:
    """Read result.json; None if it is corrupt, not ours or of a later version.

    Raises:
        FileNotFoundError: the file does not exist.
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
def as_user_error(folder: Path) -> Iterator[None]:
    """Convert an OSError of writing to a UserError."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.strerror or error}; free space or choose another --outputs."
        ) from error


def _folders_in(folder: str | Path, name: re.Pattern[str]) -> list[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return [e for e in entries if name.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    return []
