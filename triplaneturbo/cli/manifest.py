"""Batch manifest (manifest.jsonl): one JSON object per finished mesh, so that a second run skips them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.serving.output_files import OutputJob
from triplaneturbo.utils.atomic_files import write_atomically

MANIFEST_NAME = "manifest.jsonl"
LONGEST_WAIT = 60  # seconds for the lock, which others hold for some milliseconds


class Manifest:
    """The manifest of a folder; written atomically, and safe for several processes at the same time.

    Args:
        folder: the folder.

    Raises:
        UserError: the existing manifest cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST_NAME
        self._lock = FileLock(self.path.with_name(f".{MANIFEST_NAME}.lock"), timeout=LONGEST_WAIT)
        self._locks = True
        self._read()

    def _read(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._recorded: dict[str, tuple[str | None, str]] = {}  # file name -> sha256, the job's key
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {self.path} ({error}); move the file away.") from None
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                entry["files"] = [dict(file, path=str(file["path"])) for file in entry["files"]]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"Line {number} of {self.path} is not a valid entry; move the file away."
                ) from None
            self._entries.append(entry)
            self._record(entry)

    def _record(self, entry: dict[str, Any]) -> None:
        key = str(entry.get("key", ""))
        self._recorded |= {file["path"]: (file.get("sha256"), key) for file in entry["files"]}

    def has(self, job: OutputJob) -> bool:
        """Whether every file of `job` is recorded and still exists unchanged."""

        def recorded(path: Path) -> bool:
            digest, key = self._recorded.get(path.name, (None, ""))
            return digest is not None and key == job.key and digest == _hash(path)

        return all(recorded(path) for path in job.paths.values())

    def add(self, entry: dict[str, Any]) -> None:
        """Record a mesh, replacing earlier entries of the same files; paths are stored as file names.

        Raises:
            UserError: the manifest cannot be written, or another process keeps it locked.
        """
        with self._locked():
            self._read()  # entries that other processes have added
            self._add(entry)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(
                f"Another process has locked {self.path}; stop it, or choose another folder."
            ) from None
        except (OSError, NotImplementedError) as error:
            if self._locks:
                print(
                    f"Cannot lock files in {self.path.parent} ({error}); let only one process write there.",
                    file=sys.stderr,
                )
            self._locks = False
        try:
            yield
        finally:
            self._lock.release()

    def _add(self, entry: dict[str, Any]) -> None:
        files = [{**file, "path": Path(file["path"]).name} for file in entry["files"]]
        names = {file["path"] for file in files}
        self._entries = [e for e in self._entries if not names & {file["path"] for file in e["files"]}]
        entry = {**entry, "files": files}
        self._entries.append(entry)
        self._record(entry)
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in self._entries)
        write_atomically(self.path, "".join(lines).encode())


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
