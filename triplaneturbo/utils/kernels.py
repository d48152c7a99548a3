"""How loops are compiled: by numba, with the machine code kept on disk between runs.

It is kept beside the source in a checkout, otherwise or where that is read-only in the user's cache folder.
What was compiled beside a read-only source (by `make setup`, or in an image) is copied there first, so it is
not compiled again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import UserProvidedCacheLocator

from triplaneturbo.utils.atomic_files import link_whole

SOURCE = Path(__file__).resolve().parents[1]
_BESIDE_SOURCE = SOURCE / "__pycache__"
_INSTALLED = not (SOURCE.parent / "pyproject.toml").is_file()
ONCE = "Compiling kernels, once: this takes up to a minute ..."
EACH_TIME = (
    "Compiling kernels, for this process only, since no folder for them can be written: this takes up to a"
    " minute; set NUMBA_CACHE_DIR to a writable folder to keep them."
)


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, or load its machine code from the cache.

    Where the cache cannot be written, it is compiled in each process. Kernels release the GIL and divide as
    numpy does.
    """
    options = {"nogil": True, "error_model": "numpy"}
    if _kept():
        # Numba finds no folder for sources that are no files, as in a zip.
        with contextlib.suppress(RuntimeError):
            return numba.njit(function, cache=True, **options)
    return numba.njit(function, **options)


def user_cache() -> Path | None:
    """Return the user's folder for compiled kernels, which need not exist; None for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "triplaneturbo", "kernels") if os.path.isabs(cache) else None


def cache_folder() -> Path | None:
    """Return the folder that compiled kernels are kept in; None if there is none that can be written."""
    given = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    candidates = [_BESIDE_SOURCE, *filter(None, [user_cache()])]
    if _INSTALLED:
        candidates.reverse()  # uninstalling would leave behind what is beside the source
    return next(filter(_is_writable, [*given, *candidates]), None)


@contextlib.contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Call `say` with one sentence when a kernel is first compiled inside this context."""
    announcement = _Announcement(say)
    event.register("numba:compile", announcement)
    try:
        yield
    finally:
        event.unregister("numba:compile", announcement)


def announced_on_stderr(quiet: bool = False) -> contextlib.AbstractContextManager[None]:
    """Announce on standard error, between the lines of a progress bar; do nothing if `quiet`."""
    from tqdm import tqdm

    return contextlib.nullcontext() if quiet else announced(lambda line: tqdm.write(line, file=sys.stderr))


class _Announcement(event.Listener):
    """Says once that kernels are compiled; numba tells of no kernel that comes from the cache."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = False

    def on_start(self, event: object) -> None:
        """Called before a kernel is compiled."""
        if not self._said:
            self._said = True
            self._say(ONCE if cache_folder() else EACH_TIME)

    def on_end(self, event: object) -> None:
        """Called after it."""


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@functools.cache
def _kept() -> bool:
    """Return whether kernels are kept, after numba was told where.

    Where the source is read-only, that is another folder, filled from beside the source.
    """
    folder = cache_folder()
    if folder is None or folder == _BESIDE_SOURCE:
        return folder is not None
    numba.config.CACHE_DIR = str(folder)
    for source in SOURCE.rglob("*.py"):
        target = folder / UserProvidedCacheLocator.get_suitable_cache_subpath(str(source))
        for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*.nb[ci]"):
            _copy(compiled, target / compiled.name)
    return True


def _copy(compiled: Path, target: Path) -> None:
    """Copy a file of numba's cache, unless there is one already; if that fails, it is compiled again."""
    with contextlib.suppress(OSError):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            link_whole(compiled, target)
