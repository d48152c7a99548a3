"""History entries: one saved result each, read from result.json.

Fields of Request that this version does not know are ignored; fields that an older version lacked get their
defaults.
"""

from __future__ import annotations

import hashlib
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
    """A saved result, as it was on disk when it was read.

    Attributes:
        id: the entry's id, 32 hexadecimal digits.
        name: the stem of its files, made from the prompt and the seed.
        prompt, seed: the prompt and seed of the request.
        settings: the other fields of the request.
        made: creation time in seconds since 1970.
        model: the model's name.
        adapter: the adapter's name; "" for the model's own.
        facts: the fields of the command line's --json.
        files: the existing files, by format.
        thumbnail: path of a preview image, if there is one.
        pinned: whether the entry is exempt from the quota and the limits.
        folder: the entry's folder.
        store: the store that contains it.
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
    store: ResultStore = field(repr=False, compare=False)

    @property
    def link(self) -> str:
        """Key of the result's link; see `link_of`."""
        return link_of(self.id)

    def request(self) -> Request:
        """Return the request that generated the result; fields unknown to this version are dropped."""
        known = {field.name for field in fields(Request)}
        kept = {name: _hashable(value) for name, value in self.settings.items() if name in known}
        return Request(**{**kept, "prompt": self.prompt, "seed": self.seed})

    def in_use(self) -> AbstractContextManager[None]:
        """Protect the result from deletion by the quota in this context, e.g. while its files are read.

        Raises:
            UserError: the result no longer exists.
        """
        return self.store.lease(self.folder)


def link_of(entry_id: str) -> str:
    """Return the key of a result's link: 32 hexadecimal digits that do not tell when the result was made."""
    return hashlib.sha256(f"link {entry_id}".encode()).hexdigest()[:32]


def read_entry(store: ResultStore, folder: Path) -> HistoryEntry | None:
    """Read the entry in a folder; None if there is none that this version can read."""
    try:
        result = None if folder.is_symlink() else read(folder)
        if result is None:
            return None
        name, prompt, seed, made = (result[key] for key in ("name", "prompt", "seed", "made"))
        settings, facts = result["settings"], result["facts"]
        model, adapter = result["model"], result["adapter"]
    except (FileNotFoundError, KeyError):
        return None
    expected: list[tuple[Any, type | tuple[type, ...]]] = [
        *((text, str) for text in (name, prompt, model, adapter)),
        *((table, dict) for table in (settings, facts)),
        (seed, int),
        (made, (int, float)),
    ]
    if not all(isinstance(value, kind) for value, kind in expected) or not re.fullmatch(r"[a-z0-9-]+", name):
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
        store=store,
    )


def suffix_of(picture: bytes) -> str:
    """Return an image's suffix by its first bytes. Raise ValueError if browsers do not show it."""
    for signature, suffix in PICTURES.items():
        if picture.startswith(signature):
            return suffix
    raise ValueError("a thumbnail must be a PNG, WebP, GIF or JPEG image")


def _hashable(value: Any) -> Any:
    """Convert JSON lists to the tuples of Request's fields."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
