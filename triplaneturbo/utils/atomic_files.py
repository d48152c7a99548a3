"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from triplaneturbo.errors import UserError

# It can only be read by setting it, which no two threads may do at once: once, then, at import.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path` so that no reader ever sees a part of it.

    The bytes go to a temporary file in the same folder, which is then renamed over `path`; a failure or an
    interruption at any moment leaves what stood there before and no temporary file.

    Raises:
        UserError: the folder cannot be made or written (no permission, no space, a file in the way).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent
        )
    except OSError as error:
        raise UserError(f"Cannot write in {path.parent}: {error.strerror}; choose another folder.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it the permissions that an ordinary new file would have.
        os.chmod(temporary, 0o666 & ~_UMASK)
        rename_over(temporary, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}; free space or go elsewhere.") from error
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


def link_whole(source: Path, target: Path) -> Path:
    """Have `source` at `target` too, whole: without a copy where the file system can.

    Args:
        source: a file that is never changed in place.

    Raises:
        OSError: it cannot be had there.
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
