"""Which files the page's server gives out: those of results and of runs, by names that nobody can guess.

root/<visitor, 64 digits>/<result, 32 digits>/<file>      the history's; see room.py
root/live-<16 digits>/<session, 32 digits>/<file>         a running server's, which go with it
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
from triplaneturbo.serving.result_store import mendable
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
    """The files below a history's root that may be given out.

    Args:
        history: all visitors' results.
    """

    def __init__(self, history: History) -> None:
        self._room = history.room
        self.root = history.root

    def file(self, path: object) -> Path | None:
        """The file at an absolute path if it may be given out, otherwise None.

        It has to be named as a mesh or a picture of a result is, and neither it nor a folder above it may be
        a link: what result.json says is nobody's, and no name leads elsewhere.
        """
        return Path(path) if self._named_well(path) and os.path.isfile(path) else None

    def may_be_named(self, path: object) -> bool:
        """Whether a request may name this path: one of a file that may be given out, even if it is gone.

        A page that outlives its server, or its last result, still names what it shows.
        """
        return self._named_well(path) and (os.path.isfile(path) or not os.path.lexists(path))

    def _named_well(self, path: object) -> TypeGuard[str]:
        if not isinstance(path, str) or not path.startswith(f"{self.root}{os.sep}"):
            return False
        inside = path[len(str(self.root)) + 1 :].replace(os.sep, "/")
        return bool(_SHAPE.fullmatch(inside)) and os.path.realpath(path) == path

    def in_use(self, file: Path) -> AbstractContextManager[None]:
        """While it is entered (the file is sent, say), no quota deletes the result that it belongs to."""
        kept = not file.parent.parent.name.startswith(_LIVE)
        return _if_possible(self._room.lease(file.parent)) if kept else nullcontext()


@contextmanager
def live_folder(history: History) -> Iterator[Path]:
    """A folder for what does not outlive the server, deleted at the end.

    What servers left that were killed goes, too; and if something is written while this one's is deleted, the
    next server deletes it.

    Raises:
        UserError: it cannot be made.
    """
    folder = history.root / f"{_LIVE}{secrets.token_hex(8)}"
    alive = FileLock(folder.with_suffix(".lock"), thread_local=False)
    with history.room.locked(), mendable(history.root):
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
    """Delete a live folder whose server is no more."""
    left = FileLock(lock, thread_local=False)
    with contextlib.suppress(Timeout):
        left.acquire(timeout=0)
        folder = lock.with_suffix("")
        shutil.rmtree(folder, ignore_errors=True)
        left.release()
        if not folder.exists():
            lock.unlink(missing_ok=True)


@contextmanager
def _if_possible(lease: AbstractContextManager[None]) -> Iterator[None]:
    """A full disk is no reason not to give out what lies on it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(UserError):
            stack.enter_context(lease)
        yield
