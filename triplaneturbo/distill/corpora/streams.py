"""Streaming readers of large prompt files: .txt, .jsonl, .csv, .json and .parquet.

Memory is limited to a few MiB for any input. All values are returned, whether they are text or not; corpus.py
decides which are prompts.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import ijson

from triplaneturbo.distill.corpora.tables import KNOWN, declared_delimiter, delimiter
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

_LONGEST = 2**16  # bytes of a line; longer lines are not prompts
_OPENING = {"start_map": "{", "start_array": "["}  # events of ijson
TOO_LONG, NO_TEXT, COMMENT = object(), object(), object()  # sentinels for lines without a value


def stream(path: Path, column: str | None = None) -> Iterator[Any]:
    """Yield all values of a file, in order.

    Args:
        path: the file.
        column: column of a table or key of a list; None for the first named prompt, caption, train or
            similar.

    Raises:
        UserError: if the file is unreadable or of another type, or a column must be chosen.
    """
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise UserError(f"{shown(str(path))} should end in {', '.join(_READERS)}.")
    if kind == ".txt" and column is not None:
        raise UserError(f"{shown(str(path))} is a list of lines without columns: do not choose a column.")
    try:
        with path.open("rb") as file:
            check_head(file.read(4096), path, kind)
            file.seek(0)
            yield from _READERS[kind](file, column, shown(str(path)))
    except OSError as error:
        raise UserError(
            f"Cannot read {shown(str(path))}: {error.strerror}; name a file of prompts."
        ) from None


def check_head(head: bytes, path: Path, kind: str) -> None:
    """Check that the first bytes of a file are consistent with its type.

    Raises:
        UserError: if they are not.
    """
    name = shown(str(path))
    if kind == ".parquet":
        if head[:4] != b"PAR1":
            raise UserError(f"{name} is not a parquet file, despite its name.")
        return
    if head[:4] == b"PK\x03\x04" or head[:2] == b"\x1f\x8b":
        raise UserError(f"{name} is a compressed archive, despite its name: unpack it first.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name} is UTF-16 text: save it as UTF-8.")
    if b"\0" in head:
        raise UserError(f"{name} contains NUL bytes, so it is not UTF-8 text: save it as UTF-8.")


def _lines(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield lines."""
    first = True
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST and not line.endswith(b"\n"):
            while (rest := file.readline(_LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield TOO_LONG
            continue
        try:
            text = line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            text = NO_TEXT  # type: ignore[assignment]
        first = False
        yield text


def _text(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield lines, with COMMENT for comments."""
    for line in _lines(file, column, name):
        yield COMMENT if isinstance(line, str) and line.lstrip().startswith("#") else line


def _json_lines(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield the column of each line's object, or each line's text."""
    for line in _lines(file, None, name):
        if not isinstance(line, str) or not line.strip():
            yield line
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield NO_TEXT
            continue
        if isinstance(value, dict):
            column = column or _known(list(value), name)
            value = value.get(column)
        yield value


def _csv(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield a column; the first row is the header."""
    texts = (line if isinstance(line, str) else "\n" for line in _lines(file, None, name))
    first = next(texts, "")
    declared = declared_delimiter(first)
    parts = declared or delimiter(first)
    rows = csv.reader(chain([first], texts) if declared is None else texts, delimiter=parts)
    try:
        head = [cell.strip() for cell in next(rows, [])]
        column = column or (head[0] if len(head) == 1 else _known(head, name))
        if column not in head:
            raise UserError(f"{name} has no column {shown(column)}: choose from {', '.join(head)[:300]}.")
        at = head.index(column)
        for row in rows:
            # In a single column, unquoted delimiters are part of the text.
            yield parts.join(row) if len(head) == 1 else row[at] if at < len(row) else ""
    except csv.Error as error:
        raise UserError(f"{name} is not valid CSV ({error}): fix it or use a .txt file.") from None


def _json(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield the texts of a list, of the list under a key, or under a key of objects."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    brackets: list[str] = []  # open brackets
    key, found_any = "", False
    try:
        for event, value in ijson.basic_parse(file):
            if event in _OPENING:
                brackets.append(_OPENING[event])
            elif event in ("end_map", "end_array"):
                brackets.pop()
            elif event == "map_key":
                key = value
            elif len(brackets) <= 2:
                place = "".join(brackets)
                if place == "[" or (place in ("{[", "[{", "{{") and _wanted(key, column)):
                    column = column or (key if len(place) == 2 else None)
                    found_any = True
                    yield value
    except (ijson.JSONError, ValueError) as error:  # ValueError: ijson's backend without C
        if "utf" in str(error).casefold():
            raise UserError(f"{name} is not UTF-8 text: save it as UTF-8.") from None
        raise UserError(f"{name} is not valid JSON: fix it or use a .txt file.") from None
    if not found_any:
        raise UserError(f"{name} contains no list of prompts{f' under {shown(column)}' if column else ''}.")


def _parquet(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Yield a column, reading rows in batches."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(f"{name} is a parquet file, which requires pyarrow: pip install pyarrow.") from None
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        column = column or (names[0] if len(names) == 1 else _known(names, name))
        if column not in names:
            raise UserError(f"{name} has no column {shown(column)}: choose from {', '.join(names)[:300]}.")
        for batch in table.iter_batches(batch_size=4096, columns=[column]):
            yield from batch.column(0).to_pylist()
    except ArrowInvalid as error:
        raise UserError(f"{name} is broken ({str(error)[:80]}): create it again.") from None


_READERS: dict[str, Callable[[IO[bytes], str | None, str], Iterator[Any]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)


def _wanted(key: str, column: str | None) -> bool:
    return key == column if column else key.casefold() in KNOWN


def _known(names: list[str], name: str) -> str:
    folded = {one.casefold(): one for one in reversed(names)}
    known = next((folded[word] for word in KNOWN if word in folded), None)
    if known is None:
        raise UserError(f"Choose the column of {name} that contains the prompts: {', '.join(names)[:300]}.")
    return known
