"""manifest.jsonl: what a batch has made, one JSON object a line, so that a second run makes only the rest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from triplaneturbo.commands.outputs import Job
from triplaneturbo.errors import UserError
from triplaneturbo.files import write_whole

MANIFEST_NAME = "manifest.jsonl"


class Manifest:
    """The manifest of a folder; written whole after each addition.

    Args:
        folder: the folder.
        shared: other processes add to it, too.

    Raises:
        UserError: there is one that cannot be read.
    """

    def __init__(self, folder: Path, shared: bool = False) -> None:
        self.path = folder / MANIFEST_NAME
        self._shared = shared
        self._read()

    def _read(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._recorded: dict[str, str | None] = {}  # file name -> sha256
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {self.path} ({error}); move it away.") from None
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                entry["files"] = [dict(file, path=str(file["path"])) for file in entry["files"]]
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"Line {number} of {self.path} is no entry of a batch; move it away."
                ) from None
            self._entries.append(entry)
            self._recorded |= {file["path"]: file.get("sha256") for file in entry["files"]}

    def has(self, job: Job) -> bool:
        """Whether every file of `job` was recorded and is still there, unchanged."""
        return all(self._recorded.get(path.name) == _hash(path) is not None for path in job.paths.values())

    def add(self, entry: dict[str, Any]) -> None:
        """Record a mesh, in the place of what was recorded for the same files; paths become file names."""
        if not self._shared:
            self._add(entry)
            return
        with FileLock(self.path.with_name(f".{MANIFEST_NAME}.lock")):
            self._read()  # what the others have added
            self._add(entry)

    def _add(self, entry: dict[str, Any]) -> None:
        files = [{**file, "path": Path(file["path"]).name} for file in entry["files"]]
        names = {file["path"] for file in files}
        self._entries = [e for e in self._entries if not names & {file["path"] for file in e["files"]}]
        self._entries.append({**entry, "files": files})
        self._recorded |= {file["path"]: file.get("sha256") for file in files}
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in self._entries)
        write_whole(self.path, "".join(lines).encode())


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
