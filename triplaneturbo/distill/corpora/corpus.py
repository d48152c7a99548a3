"""Corpora with millions of prompts that are read from disk instead of being held in memory.

One pass over the source file (streams.py) writes a cleaned copy and its index to a folder:

    corpus.txt     one normalized prompt per line
    corpus.npy     byte offsets of the prompts without duplicates: uint64 [N]
    corpus.json    the source file, and counts of what was left out

Prompts are then read by index; shuffle.py defines the order of training.
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
from triplaneturbo.utils.atomic_files import rename_over, write_atomically

TEXT, INDEX, METADATA = "corpus.txt", "corpus.npy", "corpus.json"
_REPORT_EVERY = 100_000  # prompts
_EVALUATION_SPLITS = ("val", "validation", "test")  # lists of a JSON file that are not training data


@dataclass(frozen=True)
class Counts:
    """Counts of the values that were left out of a corpus, by reason."""

    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0
    held_out: int = 0
    comments: int = 0


class Corpus(Sequence[str]):
    """Random access to the prompts of a folder that `make_corpus` has filled.

    Attributes:
        counts: counts of what was left out.
        source: path of the source file.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            UserError: if the folder contains no complete corpus.
        """
        try:
            metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
            self.source, self.counts = metadata["source"], Counts(**metadata["counts"])
            self._starts = np.load(folder / INDEX, mmap_mode="r")
            self._file = (folder / TEXT).open("rb")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} contains no complete corpus ({error}): create it again.") from None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        """Return one prompt or a list of prompts.

        Raises:
            UserError: if the file has changed since it was indexed.
        """
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        self._file.seek(int(self._starts[number]))
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise UserError(f"{self._file.name} has changed: create the corpus again.")
        return line[:-1].decode("utf-8")

    @property
    def summary(self) -> str:
        """One line with the number of prompts and of what was left out."""
        out = ", ".join(
            f"{count:,} {what.replace('_', ' ')}" for what, count in asdict(self.counts).items() if count
        )
        return f"{len(self):,} prompts{f'; left out: {out}' if out else ''}"


def hold_out(path: Path, column: str | None, most: int) -> tuple[list[str], list[str]]:
    """Return evaluation prompts of a file: held-out prompts, and the first training prompts.

    Held-out prompts come from the file's own evaluation list ("val" or "test" of a .json), or else from its
    beginning.

    Args:
        path: file of prompts.
        column: see `stream`.
        most: maximum number of each; at most half of the file's prompts are held out.

    Raises:
        UserError: if the file cannot be read or contains no prompt.
    """
    held: list[str] = []
    if path.suffix.lower() == ".json":
        for name in _EVALUATION_SPLITS:
            if name != column and not held:
                with suppress(UserError):  # no such list
                    held = _first(path, name, most)
    first = _first(path, column, 3 * most)
    if not first:
        raise UserError(f"{shown(str(path))} contains no usable prompt: give at least one.")
    held = held or first[: min(most, len(first) // 2)]
    taken = {prompt.casefold() for prompt in held}
    return held, [prompt for prompt in first if prompt.casefold() not in taken][:most]


def _first(path: Path, column: str | None, most: int) -> list[str]:
    """Return the first distinct prompts of a file."""
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
    """Create a corpus in a folder, unless it is up to date; yield the number of values read so far.

    Args:
        path: source file.
        folder: folder of the corpus.
        column: see `stream`.
        without: held-out prompts to exclude.

    Raises:
        UserError: if the file cannot be read or contains no prompt, or the folder cannot be written.
    """
    held = {prompt.casefold() for prompt in without}
    metadata = _source_metadata(path, column, held)
    if _is_current(folder, metadata):
        return
    counts = dict.fromkeys(Counts.__dataclass_fields__, 0)
    starts, hashes = array("Q"), array("q")
    offset = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{TEXT}.{os.getpid()}.part"
        try:
            with part.open("wb") as out, closing(stream(path, column)) as values:  # type: ignore[type-var]
                for number, value in enumerate(values):
                    if number % _REPORT_EVERY == 0:
                        yield number
                    line = _cleaned(value, counts)
                    if line is None:
                        continue
                    if line[:-1].casefold() in held:
                        counts["held_out"] += 1
                        continue
                    hashes.append(hash(line.casefold()))
                    starts.append(offset)
                    offset += out.write(line.encode())
                out.flush()
                os.fsync(out.fileno())
            rename_over(part, folder / TEXT)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write to {folder}: {error.strerror}; free space or choose another folder."
        ) from error
    if not starts:
        raise UserError(f"{shown(str(path))} contains no usable prompt: give at least one.")
    # Keep the first of equal hashes. The chance of a collision among a million prompts is about 1 in 10^7.
    _, first = np.unique(np.frombuffer(hashes, dtype=np.int64), return_index=True)
    first.sort()
    kept = np.frombuffer(starts, dtype=np.uint64)[first]
    counts["duplicates"] = len(starts) - len(kept)
    buffer = BytesIO()
    np.save(buffer, kept)
    write_atomically(folder / INDEX, buffer.getvalue())
    write_atomically(folder / METADATA, (json.dumps({**metadata, "counts": counts}) + "\n").encode())


def _cleaned(value: Any, counts: dict[str, int]) -> str | None:
    """Normalize a value to a line of the copy; if it is no prompt, count the reason and return None."""
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
        # Fast path: most prompts are normalized already.
        return (text if text.isprintable() and "  " not in text else tidy_prompt(text)) + "\n"
    return None


def _source_metadata(path: Path, column: str | None, held: Collection[str]) -> dict[str, Any]:
    """Return metadata that identifies the state of the source file and the options."""
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


def _is_current(folder: Path, metadata: dict[str, Any]) -> bool:
    try:
        stored = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and all(stored.get(key) == value for key, value in metadata.items())
