"""Access control for served files: those of results and runs, under unguessable names.

root/<visitor, 64 digits>/<result, 32 digits>/<file>      history; see result_store.py
root/live-<16 digits>/<session, 32 digits>/<file>         files of a running server, deleted when it ends
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeGuard

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.serving.history_entry import PICTURES
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.result_store import as_user_error
from triplaneturbo.serving.user_history import History

_LIVE = "live-"
_KINDS = "|".join(
    re.escape(suffix) for suffix in sorted({*FORMATS.values(), *PICTURES.values(), ".svg", ".safetensors"})
)
_SHAPE = re.compile(
    rf"(?P<folder>(?:[0-9a-f]{{64}}|{_LIVE}[0-9a-f]{{16}})/[0-9a-f]{{32}})/[A-Za-z0-9][\w.-]*(?:{_KINDS})",
    re.ASCII,
)


class ServedFiles:
    """The files below the history's root that may be served.

    Args:
        history: the results of all visitors.
    """

    def __init__(self, history: History) -> None:
        self._store = history.store
        self.root = history.root

    def file(self, path: object) -> Path | None:
        """Return the file at an absolute path if it may be served, otherwise None.

        Its name must be that of a mesh or image of a result, which excludes result.json. Neither the file nor
        a folder above it may be a symbolic link.
        """
        return Path(path) if self._is_valid_path(path) and os.path.isfile(path) else None

    def may_be_named(self, path: object) -> bool:
        """Whether a request may contain this path: that of a servable file, which may be deleted meanwhile.

        A page that is still open after its server or its last result is gone keeps sending the old paths.
        """
        return self._is_valid_path(path) and (os.path.isfile(path) or not os.path.lexists(path))

    def _is_valid_path(self, path: object) -> TypeGuard[str]:
        if not isinstance(path, str) or not path.startswith(f"{self.root}{os.sep}"):
            return False
        inside = path[len(str(self.root)) + 1 :].replace(os.sep, "/")
        return bool(_SHAPE.fullmatch(inside)) and os.path.realpath(path) == path

    def in_use(self, file: Path) -> AbstractContextManager[None]:
        """Protect the file's result from deletion by the quota in this context, e.g. while it is sent."""
        in_history = not file.parent.parent.name.startswith(_LIVE)
        return _best_effort(self._store.lease(file.parent)) if in_history else nullcontext()


@contextmanager
def live_folder(history: History) -> Iterator[Path]:
    """Create a folder for the files of this server process and delete it on exit.

    Also deletes the folders of servers that were killed. Files that are written during the deletion on exit
    are deleted by the next server.

    Raises:
        UserError: the folder cannot be created.
    """
    folder = history.root / f"{_LIVE}{secrets.token_hex(8)}"
    alive = FileLock(folder.with_suffix(".lock"), thread_local=False)
    with history.store.locked(), as_user_error(history.root):
        for path in history.root.glob(f"{_LIVE}*.lock"):
            _sweep(path)
        alive.acquire()
        folder.mkdir()
    try:
        yield folder
    finally:
        alive.release()
        _sweep(Path(alive.lock_file))


def _sweep(lock: Path) -> None:
    """Delete a live folder whose server no longer runs."""
    stale = FileLock(lock, thread_local=False)
    with contextlib.suppress(Timeout):
        stale.acquire(timeout=0)
        folder = lock.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        stale.release()
        if not folder.exists():
            lock.unlink(missing_ok=True)


@contextmanager
def _best_effort(lease: AbstractContextManager[None]) -> Iterator[None]:
    """Enter the lease if possible; files can be served even if the disk is full."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(UserError):
            stack.enter_context(lease)
        yield
