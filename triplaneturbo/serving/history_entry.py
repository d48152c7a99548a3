"""One kept result: what result.json beside its files says.

A reader takes what it knows: fields that a later version of Request has are ignored, those that an earlier
one lacked have their defaults.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from triplaneturbo.request import Request
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.result_store import PINNED, THUMBNAIL, ResultStore, read

PICTURES = {b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"\xff\xd8\xff": ".jpg"}


@dataclass(frozen=True)
class HistoryEntry:
    """One kept result, as it stood on disk when it was read.

    Attributes:
        id: its name, 32 hexadecimal digits.
        name: the stem of its files, made from the prompt and the seed.
        prompt, seed: what was asked for.
        settings: the other fields of the Request.
        made: when, in seconds since 1970.
        model: what the model is called.
        adapter: what its adapter is called, "" for the model's own.
        facts: as the command line's --json tells them.
        files: those that are there, by format.
        thumbnail: a picture of it, if there is one.
        pinned: whether no quota and no limit deletes it.
        folder: where it lies.
    """

    id: str
    name: str
    prompt: str
    seed: int
    settings: dict[str, Any]
    made: float
    model: str
    adapter: str
    facts: dict[str, Any]
    files: dict[str, Path]
    thumbnail: Path | None
    pinned: bool
    folder: Path
    room: ResultStore = field(repr=False, compare=False)

    def request(self) -> Request:
        """The request that made it, as far as this version knows its fields; the others have defaults."""
        known = {field.name for field in fields(Request)}
        kept = {name: _hashable(value) for name, value in self.settings.items() if name in known}
        return Request(**{**kept, "prompt": self.prompt, "seed": self.seed})

    def in_use(self) -> AbstractContextManager[None]:
        """While it is entered (its files are read, say), no quota deletes it.

        Raises:
            UserError: the result is gone.
        """
        return self.room.lease(self.folder)


def read_entry(room: ResultStore, folder: Path) -> HistoryEntry | None:
    """The result in a folder, or None if there is none that this version can read."""
    try:
        result = None if folder.is_symlink() else read(folder)
        if result is None:
            return None
        name, prompt, seed, made = (result[key] for key in ("name", "prompt", "seed", "made"))
        settings, facts = result["settings"], result["facts"]
        model, adapter = result["model"], result["adapter"]
    except (FileNotFoundError, KeyError):
        return None
    wanted: list[tuple[Any, type | tuple[type, ...]]] = [
        *((text, str) for text in (name, prompt, model, adapter)),
        *((table, dict) for table in (settings, facts)),
        (seed, int),
        (made, (int, float)),
    ]
    if not all(isinstance(value, kind) for value, kind in wanted) or not re.fullmatch(r"[a-z0-9-]+", name):
        return None
    files = {format: folder / f"{name}{suffix}" for format, suffix in FORMATS.items()}
    pictures = [folder / f"{THUMBNAIL}{suffix}" for suffix in PICTURES.values()]
    return HistoryEntry(
        id=folder.name,
        name=name,
        prompt=prompt,
        seed=seed,
        settings=settings,
        made=float(made),
        model=model,
        adapter=adapter,
        facts=facts,
        files={format: path for format, path in files.items() if path.is_file()},
        thumbnail=next((path for path in pictures if path.is_file()), None),
        pinned=(folder / PINNED).exists(),
        folder=folder,
        room=room,
    )


def suffix_of(picture: bytes) -> str:
    """The suffix of a picture file by its first bytes. ValueError if it is none that a browser shows."""
    for beginning, suffix in PICTURES.items():
        if picture.startswith(beginning):
            return suffix
    raise ValueError("a thumbnail is a PNG, a WebP, a GIF or a JPEG")


def _hashable(value: Any) -> Any:
    """JSON has lists only, and Request's fields are tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
