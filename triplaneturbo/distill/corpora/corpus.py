"""Corpora of millions of prompts, of which no list is ever in memory.

One pass over the file, whatever its kind (streams.py), leaves a cleaned copy and its index in a folder:

    corpus.txt     a tidied prompt a line
    corpus.npy     where each begins: uint64 [N + 1]; of prompts that are there twice, the first alone
    corpus.json    of which file, and what was left out

From then on a prompt is read where it stands; which ones an iteration sees says shuffle.py.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, overload

import numpy as np

from triplaneturbo.distill.corpora.prompt_list import is_text
from triplaneturbo.distill.corpora.streams import COMMENT, TOO_LONG, stream
from triplaneturbo.errors import UserError
from triplaneturbo.request import PROMPT_LIMIT, shown, tidy_prompt
from triplaneturbo.utils.atomic_files import rename_over, write_whole

TEXT, INDEX, ABOUT = "corpus.txt", "corpus.npy", "corpus.json"
_TOLD_EVERY = 100_000  # prompts
_JUDGED_BY = ("val", "validation", "test")  # lists of a file that are not for learning


@dataclass(frozen=True)
class Counts:
    """What was left out of a corpus."""

    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0
    held_out: int = 0
    comments: int = 0


class Corpus(Sequence[str]):
    """The prompts of a folder that `make_corpus` has filled, by number.

    Attributes:
        counts: what was left out.
        source: the file that it was made of.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            UserError: the folder holds no whole corpus.
        """
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            self.source, self.counts = about["source"], Counts(**about["counts"])
            self._starts = np.load(folder / INDEX, mmap_mode="r")
            self._file = (folder / TEXT).open("rb")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no whole corpus ({error}): make it anew.") from None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        """A prompt, or several.

        Raises:
            UserError: the file has changed since it was indexed.
        """
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        self._file.seek(int(self._starts[number]))
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise UserError(f"{self._file.name} has changed: make the corpus anew.")
        return line[:-1].decode("utf-8")

    @property
    def summary(self) -> str:
        """One line on what is in it and what is not."""
        out = ", ".join(
            f"{count:,} {what.replace('_', ' ')}" for what, count in asdict(self.counts).items() if count
        )
        return f"{len(self):,} prompts{f'; left out: {out}' if out else ''}"


def hold_out(path: Path, column: str | None, most: int) -> tuple[list[str], list[str]]:
    """Prompts of a file to judge a run by: some that it is not to learn, and the first that it learns.

    The first are those of the file's own list for it ("val" or "test" of a .json), else the file's first.

    Args:
        column: see `stream`.
        most: how many of each; held out is at most half of what the file has.

    Raises:
        UserError: the file cannot be read or holds no prompt.
    """
    held: list[str] = []
    if path.suffix.lower() == ".json":
        for name in _JUDGED_BY:
            if name != column and not held:
                with suppress(UserError):  # there is no such list
                    held = _first(path, name, most)
    first = _first(path, column, 3 * most)
    if not first:
        raise UserError(f"{shown(str(path))} holds no usable prompt: give at least one.")
    held = held or first[: min(most, len(first) // 2)]
    taken = {prompt.casefold() for prompt in held}
    return held, [prompt for prompt in first if prompt.casefold() not in taken][:most]


def _first(path: Path, column: str | None, most: int) -> list[str]:
    """The first different prompts of a file."""
    found: dict[str, str] = {}
    with closing(stream(path, column)) as values:  # type: ignore[type-var]
        for value in values:
            line = _cleaned(value, dict.fromkeys(Counts.__dataclass_fields__, 0))
            if line is not None:
                found.setdefault(line.casefold(), line[:-1])
            if len(found) == most:
                break
    return list(found.values())


def make_corpus(
    path: Path, folder: Path, column: str | None = None, without: Collection[str] = ()
) -> Iterator[int]:
    """Fill a folder from a file, unless it was filled from that very file; yields how much was read.

    Args:
        column: see `stream`.
        without: prompts that are held out.

    Raises:
        UserError: the file cannot be read, holds no prompt, or the folder cannot be written.
    """
    held = {prompt.casefold() for prompt in without}
    about = _about(path, column, held)
    if _is_made(folder, about):
        return
    counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
    starts, marks = array("Q"), array("q")
    at = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{TEXT}.{os.getpid()}.part"
        try:
            with part.open("wb") as out, closing(stream(path, column)) as values:  # type: ignore[type-var]
                for number, value in enumerate(values):
                    if number % _TOLD_EVERY == 0:
                        yield number
                    line = _cleaned(value, counts)
                    if line is None:
                        continue
                    if line[:-1].casefold() in held:
                        counts["held_out"] += 1
                        continue
                    marks.append(hash(line.casefold()))
                    starts.append(at)
                    at += out.write(line.encode())
                out.flush()
                os.fsync(out.fileno())
            rename_over(part, folder / TEXT)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write in {folder}: {error.strerror}; free space or go elsewhere.") from error
    if not starts:
        raise UserError(f"{shown(str(path))} holds no usable prompt: give at least one.")
    # Of equal marks the first is taken. That two of a million prompts share one by chance is one in 10^7.
    _, first = np.unique(np.frombuffer(marks, dtype=np.int64), return_index=True)
    first.sort()
    kept = np.frombuffer(starts, dtype=np.uint64)[first]
    counts["duplicates"] = len(starts) - len(kept)
    buffer = BytesIO()
    np.save(buffer, kept)
    write_whole(folder / INDEX, buffer.getvalue())
    write_whole(folder / ABOUT, (json.dumps({**about, "counts": counts}) + "\n").encode())


def _cleaned(value: Any, counts: dict[str, int]) -> str | None:
    """A prompt as a line of the copy, or None; what it is instead is counted."""
    if value is None or (isinstance(value, str) and not value.strip()):
        counts["blanks"] += 1
    elif value is COMMENT:
        counts["comments"] += 1
    elif value is TOO_LONG or (isinstance(value, str) and len(value.strip()) > PROMPT_LIMIT):
        counts["too_long"] += 1
    elif not isinstance(value, str) or not is_text(value.strip()):
        counts["wrong"] += 1
    else:
        text = value.strip()
        # Most prompts are tidy already, which is quickly seen.
        return (text if text.isprintable() and "  " not in text else tidy_prompt(text)) + "\n"
    return None


def _about(path: Path, column: str | None, held: Collection[str]) -> dict[str, Any]:
    """Tells one state of a file from another."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(
            f"Cannot read {shown(str(path))}: {error.strerror}; name a file of prompts."
        ) from None
    return {
        "source": str(path.resolve()), "bytes": state.st_size, "changed": state.st_mtime_ns, "column": column,
        "without": sorted(held),
    }  # fmt: skip


def _is_made(folder: Path, about: dict[str, Any]) -> bool:
    try:
        told = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and all(told.get(key) == value for key, value in about.items())
