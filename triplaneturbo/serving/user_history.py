"""History of each visitor's results on disk, which survives reloads of the page and restarts of the server.

    history = History(Path("outputs/history"), quota=20_000_000_000)
    user_history = history.of(token)
    entry = user_history.add(result.request, facts, model=engine.name, thumbnail=png)
    entry = user_history.attach(entry.id, "glb", engine.encode(result, "glb", entry.name).data)
    for entry in user_history.entries():
        print(entry.prompt, entry.files)

A visitor is identified by a secret token stored in the browser; its hash is the name of the visitor's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.history_entry import HistoryEntry, link_of, read_entry, suffix_of
from triplaneturbo.serving.output_files import FORMATS, safe_name
from triplaneturbo.serving.result_store import (
    PINNED,
    RESULT,
    RESULT_MISSING,
    RESULT_NAME,
    SCHEMA,
    THUMBNAIL,
    VERSION,
    ResultStore,
    as_user_error,
    read,
)
from triplaneturbo.utils.atomic_files import link_atomically, rename_over, write_atomically

KEPT = 200
NOT_LINKED = "This link opens a result only in the browser that made it, and until the result is deleted."
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")


class History:
    """The results of all visitors.

    Args:
        root: the folder of the results; created if missing.
        clock: returns the seconds since 1970.
        quota: maximum number of bytes of all results together; None: unlimited.
        kept: maximum number of results per visitor.

    Raises:
        UserError: the folder cannot be created.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        quota: int | None = None,
        kept: int = KEPT,
    ) -> None:
        self.store = ResultStore(root, clock, quota)
        self.root = self.store.root
        self._kept = kept

    def of(self, token: str) -> UserHistory:
        """Return the history of the visitor with this token.

        Raises:
            UserError: the token is invalid.
        """
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UserError("Invalid history key; reload the page to get a new one.")
        return UserHistory(self.store, hashlib.sha256(token.encode()).hexdigest(), self._kept)


class UserHistory:
    """The results of one visitor. All methods are safe to call from several threads and processes.

    Args:
        store: the store of all results.
        visitor: the name of the visitor's folder, 64 hexadecimal digits.
        kept: maximum number of results.
    """

    def __init__(self, store: ResultStore, visitor: str, kept: int = KEPT) -> None:
        self.folder = store.root / visitor
        self._store = store
        self._kept = kept

    def add(
        self,
        request: Request,
        facts: Mapping[str, Any],
        *,
        model: str,
        adapter: str = "",
        thumbnail: bytes | None = None,
    ) -> HistoryEntry:
        """Add a result, deleting the visitor's oldest ones if necessary; `attach` adds its files.

        Args:
            request: the request with all defaults filled in.
            facts: description of the result, JSON-serialisable.
            model: the model's name.
            adapter: the adapter's name; "" for the model's own.
            thumbnail: the bytes of a PNG, WebP, GIF or JPEG.

        Raises:
            UserError: the result cannot be written, or the disk quota is exhausted.
        """
        store = self._store
        everything = asdict(request)
        result = {
            "schema": SCHEMA,
            "version": VERSION,
            "name": safe_name(request, model),
            "prompt": everything.pop("prompt"),
            "seed": everything.pop("seed"),
            "settings": everything,
            "made": store.clock(),
            "model": model,
            "adapter": adapter,
            "facts": dict(facts),
        }
        data = _json(result)
        picture = f"{THUMBNAIL}{suffix_of(thumbnail)}" if thumbnail is not None else None
        with store.locked():
            self._delete_oldest()
            store.free_space(len(data) + len(thumbnail or b""))
            folder = self.folder / store.new_name()
            try:
                with as_user_error(folder):
                    folder.mkdir(parents=True)
                if picture is not None and thumbnail is not None:
                    write_atomically(folder / picture, thumbnail)
                write_atomically(folder / RESULT, data)  # last, as it makes the result valid
            except BaseException:
                store.remove(folder)
                raise
        entry = read_entry(store, folder)
        assert entry is not None
        return entry

    def attach(
        self, id: str, format: str, source: bytes | Path, facts: Mapping[str, Any] | None = None
    ) -> HistoryEntry:
        """Add or replace a file of a result.

        Args:
            id: the result's id.
            format: one of output_files.FORMATS.
            source: the file's content, or a file that is never changed in place, which is linked or copied.
            facts: updates of the result's facts; None: no change.

        Raises:
            UserError: the result no longer exists, the file cannot be written, or the quota is exhausted.
        """
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with self._store.locked():
            entry = self.get(id)
            target = entry.folder / f"{entry.name}{FORMATS[format]}"
            self._store.free_space(size, own=entry.folder)
            if isinstance(source, bytes):
                write_atomically(target, source)
            else:
                with as_user_error(target.parent):
                    link_atomically(source, target)
            if facts is not None:
                result = read(entry.folder) or {}
                write_atomically(entry.folder / RESULT, _json({**result, "facts": {**entry.facts, **facts}}))
            return self.get(id)

    def entries(self) -> list[HistoryEntry]:
        """Return all results, newest first; unreadable ones are skipped."""
        entries = [read_entry(self._store, self.folder / name) for name in sorted(self._ids(), reverse=True)]
        return [entry for entry in entries if entry is not None]

    def linked(self, key: object) -> HistoryEntry:
        """Return a result by the key of its link.

        Raises:
            UserError: this visitor has no such result, for whatever reason.
        """
        found = next((id for id in self._ids() if link_of(id) == key), "")
        try:
            return self.get(found)
        except UserError:
            raise UserError(NOT_LINKED) from None

    def get(self, id: str) -> HistoryEntry:
        """Return a result by id.

        Raises:
            UserError: this visitor has no such result.
        """
        valid = isinstance(id, str) and RESULT_NAME.fullmatch(id)
        entry = read_entry(self._store, self.folder / id) if valid else None
        if entry is None:
            raise UserError(RESULT_MISSING)
        return entry

    def delete(self, id: str) -> None:
        """Delete a result, even a pinned one.

        Raises:
            UserError: this visitor has no such result.
        """
        with self._store.locked():
            self._store.remove(self.get(id).folder)

    def pin(self, id: str, pinned: bool) -> HistoryEntry:
        """Pin a result, which exempts it from the quota and the limits, or unpin it.

        Raises:
            UserError: this visitor has no such result.
        """
        with self._store.locked():
            mark = self.get(id).folder / PINNED
            with as_user_error(mark.parent):
                mark.touch() if pinned else mark.unlink(missing_ok=True)
            return self.get(id)

    def zip(self, destination: Path) -> Path:
        """Write a zip with one folder per result and a manifest.json, without holding it in memory.

        Raises:
            UserError: there are no results, or the file cannot be written.
        """
        entries = self.entries()
        if not entries:
            raise UserError("No results yet; generate one first.")
        with as_user_error(destination.parent):
            destination.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                prefix=".", suffix=".part", dir=destination.parent, delete=False
            ) as part:
                try:
                    # The formats are compressed already.
                    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                        listed = [_pack(archive, number, entry) for number, entry in enumerate(entries, 1)]
                        manifest = json.dumps([item for item in listed if item], indent=1, ensure_ascii=False)
                        archive.writestr("manifest.json", manifest)
                    part.close()
                    rename_over(part.name, destination)
                finally:
                    part.close()  # Windows deletes no open file
                    Path(part.name).unlink(missing_ok=True)
        return destination

    def _ids(self) -> list[str]:
        """Return the ids of all results in any order; those of unreadable ones, too."""
        with contextlib.suppress(FileNotFoundError):
            return list(filter(RESULT_NAME.fullmatch, os.listdir(self.folder)))
        return []

    def _delete_oldest(self) -> None:
        """Delete the oldest removable results so that one more fits; the caller must hold the lock."""
        entries = self.entries()
        excess = len(entries) + 1 - self._kept
        removable = [entry for entry in reversed(entries) if self._store.is_removable(entry.folder)]
        if len(removable) < excess:
            raise UserError(f"All {len(entries)} results are pinned or in use; unpin or delete some.")
        for entry in removable[: max(0, excess)]:
            self._store.remove(entry.folder)


def _pack(archive: zipfile.ZipFile, number: int, entry: HistoryEntry) -> dict[str, Any] | None:
    """Add a result to a zip and return its manifest entry; None if the result was deleted meanwhile."""
    inside = f"{number:03d}-{entry.name}"
    packed = []
    with contextlib.suppress(UserError), entry.in_use():
        for path in [*entry.files.values(), *filter(None, [entry.thumbnail])]:
            with contextlib.suppress(FileNotFoundError):
                archive.write(path, f"{inside}/{path.name}")
                packed.append(f"{inside}/{path.name}")
        return {
            "prompt": entry.prompt,
            "seed": entry.seed,
            "settings": entry.settings,
            "made": datetime.fromtimestamp(entry.made, timezone.utc).isoformat(timespec="seconds"),
            "model": entry.model,
            "adapter": entry.adapter,
            "pinned": entry.pinned,
            "files": packed,
        }
    return None


def _json(result: dict[str, Any]) -> bytes:
    return json.dumps(result, indent=1, ensure_ascii=False).encode()
