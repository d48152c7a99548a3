"""Every visitor's results, kept on disk, so that they outlive a reload of the page and the server.

    history = History(Path("outputs/history"), quota=20_000_000_000)
    shelf = history.of(token)
    entry = shelf.add(result.request, facts, model=engine.name, thumbnail=png)
    entry = shelf.attach(entry.id, "glb", engine.encode(result.mesh, "glb", entry.name))
    for entry in shelf.entries():
        print(entry.prompt, entry.files)

A visitor is known by a token that only the browser has; who does not know it cannot find the folder.
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
from triplaneturbo.serving.history_entry import HistoryEntry, read_entry, suffix_of
from triplaneturbo.serving.output_files import FORMATS, safe_name
from triplaneturbo.serving.result_store import (
    PINNED,
    RESULT,
    RESULT_NAME,
    SCHEMA,
    THUMBNAIL,
    VERSION,
    VISITOR_NAME,
    ResultStore,
    mendable,
    read,
)
from triplaneturbo.utils.atomic_files import link_whole, rename_over, write_whole

KEPT = 200
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
_GONE = "That result is gone; make it again."


class History:
    """All visitors' results.

    Args:
        root: the folder that holds them; it is made.
        clock: tells the seconds since 1970.
        quota: bytes that all of them may take; None: any number.
        kept: results that are kept of each visitor, besides pinned ones that are more.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        quota: int | None = None,
        kept: int = KEPT,
    ) -> None:
        self.room = ResultStore(root, clock, quota)
        self.root = self.room.root
        self._kept = kept

    def of(self, token: str) -> UserHistory:
        """The results of the visitor with this token.

        Raises:
            UserError: it is no token.
        """
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UserError("The browser's key to its history is damaged; reload the page for a new one.")
        return UserHistory(self.room, hashlib.sha256(token.encode()).hexdigest(), self._kept)

    def entry_of(self, path: Path) -> HistoryEntry | None:
        """The result to which a file belongs, whosesoever it is; None if it belongs to none."""
        folder = path.parent
        if folder.parent.parent != self.root or not VISITOR_NAME.fullmatch(folder.parent.name):
            return None
        return read_entry(self.room, folder) if RESULT_NAME.fullmatch(folder.name) else None


class UserHistory:
    """One visitor's results; every method may be called from any thread, in several processes.

    Args:
        room: the root folder.
        visitor: the folder's name, 64 hexadecimal digits.
        kept: the most results.
    """

    def __init__(self, room: ResultStore, visitor: str, kept: int = KEPT) -> None:
        self.folder = room.root / visitor
        self._room = room
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
        """Keep a result; its files are attached when they are written. The visitor's oldest make room.

        Args:
            request: as the engine settled it.
            facts: of the result; anything that JSON can tell.
            model: what the model is called.
            adapter: what its adapter is called, "" for the model's own.
            thumbnail: the bytes of a PNG, WebP, GIF or JPEG.

        Raises:
            UserError: it cannot be written, or the disk quota is used up.
        """
        room = self._room
        everything = asdict(request)
        result = {
            "schema": SCHEMA,
            "version": VERSION,
            "name": safe_name(request, model),
            "prompt": everything.pop("prompt"),
            "seed": everything.pop("seed"),
            "settings": everything,
            "made": room.clock(),
            "model": model,
            "adapter": adapter,
            "facts": dict(facts),
        }
        data = _json(result)
        picture = f"{THUMBNAIL}{suffix_of(thumbnail)}" if thumbnail is not None else None
        with room.locked():
            self._make_way()
            room.make(len(data) + len(thumbnail or b""))
            folder = self.folder / room.new_name()
            try:
                with mendable(folder):
                    folder.mkdir(parents=True)
                if picture is not None and thumbnail is not None:
                    write_whole(folder / picture, thumbnail)
                write_whole(folder / RESULT, data)  # last: without it there is no result
            except BaseException:
                room.remove(folder)
                raise
        entry = read_entry(room, folder)
        assert entry is not None
        return entry

    def attach(
        self, id: str, format: str, source: bytes | Path, facts: Mapping[str, Any] | None = None
    ) -> HistoryEntry:
        """Add a result's file, or put one in the place of an older one.

        Args:
            id: the result's.
            format: one of commands.outputs.FORMATS.
            source: what is in the file, or a file that is never changed in place; it stays where it is.
            facts: what they say now, if anything of them is new; the others stay.

        Raises:
            UserError: the result is gone, the file cannot be written, or the disk quota is used up.
        """
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with self._room.locked():
            entry = self.get(id)
            target = entry.folder / f"{entry.name}{FORMATS[format]}"
            self._room.make(size, own=entry.folder)
            if isinstance(source, bytes):
                write_whole(target, source)
            else:
                with mendable(target.parent):
                    link_whole(source, target)
            if facts is not None:
                result = read(entry.folder) or {}
                write_whole(entry.folder / RESULT, _json({**result, "facts": {**entry.facts, **facts}}))
            return self.get(id)

    def entries(self) -> list[HistoryEntry]:
        """All results, the newest first; what cannot be read is left out, and left alone."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(filter(RESULT_NAME.fullmatch, os.listdir(self.folder)), reverse=True)
            found = [read_entry(self._room, self.folder / name) for name in names]
            return [entry for entry in found if entry is not None]
        return []

    def get(self, id: str) -> HistoryEntry:
        """One result.

        Raises:
            UserError: this visitor has no such result.
        """
        known = isinstance(id, str) and RESULT_NAME.fullmatch(id)
        entry = read_entry(self._room, self.folder / id) if known else None
        if entry is None:
            raise UserError(_GONE)
        return entry

    def delete(self, id: str) -> None:
        """Delete a result, even a pinned one.

        Raises:
            UserError: this visitor has no such result.
        """
        with self._room.locked():
            self._room.remove(self.get(id).folder)

    def pin(self, id: str, pinned: bool) -> HistoryEntry:
        """Keep a result whatever the quota and the limits say, or no longer.

        Raises:
            UserError: this visitor has no such result.
        """
        with self._room.locked():
            mark = self.get(id).folder / PINNED
            with mendable(mark.parent):
                mark.touch() if pinned else mark.unlink(missing_ok=True)
            return self.get(id)

    def zip(self, destination: Path) -> Path:
        """All results as one zip, written piece by piece; a folder each, and manifest.json of all.

        Raises:
            UserError: there are none, or it cannot be written.
        """
        entries = self.entries()
        if not entries:
            raise UserError("There are no results yet; make one first.")
        with mendable(destination.parent):
            destination.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                prefix=".", suffix=".part", dir=destination.parent, delete=False
            ) as part:
                try:
                    # What packing the formats once more saves is not worth its time.
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

    def _make_way(self) -> None:
        """Delete the oldest that may go until there is room for one more; called while the room is locked."""
        entries = self.entries()
        excess = len(entries) + 1 - self._kept
        going = [entry for entry in reversed(entries) if self._room.may_go(entry.folder)][: max(0, excess)]
        if len(going) < excess:
            raise UserError(f"All {len(entries)} results are pinned or in use; unpin or delete some.")
        for entry in going:
            self._room.remove(entry.folder)


def _pack(archive: zipfile.ZipFile, number: int, entry: HistoryEntry) -> dict[str, Any] | None:
    """Put a result into a zip and tell what the manifest says of it; None if it was deleted meanwhile."""
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
