"""Numba compilation with an on-disk cache.

The cache is next to the source in a checkout; otherwise, or if that is read-only, it is in the user's cache
folder. Kernels that were compiled next to a read-only source (by `make setup`, or in a container image) are
copied to the user's folder first.
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

from triplaneturbo.utils.atomic_files import link_atomically

_CONTRACT = {"contract", "reassoc", "nsz"}  # flags of LLVM; NaN and infinity keep their meaning
SOURCE = Path(__file__).resolve().parents[1]
_BESIDE_SOURCE = SOURCE / "__pycache__"
_INSTALLED = not (SOURCE.parent / "pyproject.toml").is_file()
COMPILING_ONCE = "Compiling kernels; this happens once and takes up to a minute ..."
COMPILING_EACH_TIME = (
    "Compiling kernels for this process only, because no cache folder is writable; this takes up to a minute."
    " Set NUMBA_CACHE_DIR to a writable folder to cache them."
)


def kernel(function: Callable[..., Any] | None = None, *, contract: bool = False) -> Callable[..., Any]:
    """Compile `function` on its first call, or load it from the cache: `@kernel` or `@kernel(contract=True)`.

    Without a writable cache, it is compiled in each process. Kernels release the GIL and divide as numpy
    does.

    Args:
        function: the loops to compile.
        contract: fuse products and sums and reorder sums, so that the loops over them use vector units.
            Rounding then depends on the CPU.
    """
    if function is None:
        return functools.partial(kernel, contract=contract)
    options = {"nogil": True, "error_model": "numpy", "fastmath": _CONTRACT if contract else False}
    if _cache_enabled():
        # numba has no cache location for sources that are not files, as in a zip.
        with contextlib.suppress(RuntimeError):
            return numba.njit(function, cache=True, **options)
    return numba.njit(function, **options)


def user_cache() -> Path | None:
    """Return the user's cache folder for kernels, which may not exist; None for a user without a home."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "triplaneturbo", "kernels") if os.path.isabs(cache) else None


def cache_folder() -> Path | None:
    """Return the cache folder for kernels; None if none is writable."""
    given = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    candidates = [_BESIDE_SOURCE, *filter(None, [user_cache()])]
    if _INSTALLED:
        candidates.reverse()  # uninstalling would leave behind what is beside the source
    return next(filter(_is_writable, [*given, *candidates]), None)


@contextlib.contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Call `say` with a message when the first kernel is compiled inside this context."""
    announcement = _Announcement(say)
    event.register("numba:compile", announcement)
    try:
        yield
    finally:
        event.unregister("numba:compile", announcement)


def announced_on_stderr(quiet: bool = False) -> contextlib.AbstractContextManager[None]:
    """Print the message of `announced` to standard error, above progress bars; no-op if `quiet`."""
    from tqdm import tqdm

    return contextlib.nullcontext() if quiet else announced(lambda line: tqdm.write(line, file=sys.stderr))


class _Announcement(event.Listener):
    """A numba listener that reports the first compilation; loading from the cache triggers no event."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = False

    def on_start(self, event: object) -> None:
        """Handle the start of a compilation."""
        if not self._said:
            self._said = True
            self._say(COMPILING_ONCE if cache_folder() else COMPILING_EACH_TIME)

    def on_end(self, event: object) -> None:
        """Handle the end of a compilation."""


def _is_writable(folder: Path) -> bool:
    """Return whether a folder is writable, creating it if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@functools.cache
def _cache_enabled() -> bool:
    """Set numba's cache folder and return whether kernels can be cached.

    If the folder is not next to the source, copy kernels that were compiled there.
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
    """Copy a file of numba's cache unless it exists; on failure, the kernel is compiled again."""
    with contextlib.suppress(OSError):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            link_atomically(compiled, target)
