"""Atomic file writes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from triplaneturbo.errors import UserError

# The umask can only be read by setting it, which is not thread-safe, so it is read once at import.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path` atomically, creating its folder if necessary. Returns the path.

    The data is written to a temporary file in the same folder, which then replaces `path`. If that fails or
    is interrupted, the previous file is unchanged and the temporary file is removed.

    Raises:
        UserError: the folder cannot be created or is not writable, or there is no space left.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise UserError(f"Cannot write to {path.parent}: {error.strerror}; choose another folder.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates a private file; set the permissions of an ordinary new file.
        os.chmod(temporary, 0o666 & ~_UMASK)
        rename_over(temporary, path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}; free some space or choose another folder."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return path


def rename_over(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file over another, as `os.replace`.

    On Windows, where that is refused while any process has the target open, retry for about a second.
    """
    for attempt in range(7 if os.name == "nt" else 0):
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(0.01 * 2**attempt)
    os.replace(source, target)


def link_atomically(source: Path, target: Path) -> Path:
    """Create `target` atomically as a hard link to `source`, or as a copy if links are not supported.

    Args:
        source: a file that is never modified in place.
        target: the path to create or replace.

    Raises:
        OSError: the file cannot be created.
    """
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
        rename_over(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
