"""Very long files of prompts, read a piece at a time: .txt, .jsonl, .csv, .json and .parquet.

Whatever a file holds, no more than a few MiB of it are in memory. The values are what stands there, texts or
not; corpus.py says which of them are prompts.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from triplaneturbo.distill.corpora.tables import KNOWN, delimiter, said_delimiter
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

_PIECE = 2**20  # bytes at a time
_LONGEST = 2**16  # bytes of a line; what is longer is no prompt
TOO_LONG, NO_TEXT, COMMENT = object(), object(), object()  # in the place of what cannot be told as a value


def stream(path: Path, column: str | None = None) -> Iterator[Any]:
    """All values of a file, in order.

    Args:
        column: of a table, or the key of a list; None: the first that is called prompt, caption, train or the
            like.

    Raises:
        UserError: the file cannot be read, is of no such kind, or a column has to be chosen.
    """
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise UserError(f"{shown(str(path))} should end in {', '.join(_READERS)}.")
    if kind == ".txt" and column is not None:
        raise UserError(f"{shown(str(path))} is a list of lines and has no columns: choose none.")
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
    """Nothing, if a file that begins so may be UTF-8 text, or whatever else its kind is.

    Raises:
        UserError: it is not.
    """
    name = shown(str(path))
    if kind == ".parquet":
        if head[:4] != b"PAR1":
            raise UserError(f"{name} is no parquet file, whatever its name says.")
        return
    if head[:4] == b"PK\x03\x04" or head[:2] == b"\x1f\x8b":
        raise UserError(f"{name} is a packed archive, whatever its name says: unpack it first.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name} is UTF-16 text: save it as UTF-8.")
    if b"\0" in head:
        raise UserError(f"{name} holds NUL bytes, so it is no UTF-8 text: save it as UTF-8.")


def _lines(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """Lines as texts."""
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
    """Lines as texts, but for comments."""
    for line in _lines(file, column, name):
        yield COMMENT if isinstance(line, str) and line.lstrip().startswith("#") else line


def _json_lines(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """The column of each line's object, or each line's text."""
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
    """A column; the first row names them."""
    texts = (line if isinstance(line, str) else "\n" for line in _lines(file, None, name))
    first = next(texts, "")
    said = said_delimiter(first)
    parts = said or delimiter(first)
    rows = csv.reader(chain([first], texts) if said is None else texts, delimiter=parts)
    try:
        head = [cell.strip() for cell in next(rows, [])]
        column = column or (head[0] if len(head) == 1 else _known(head, name))
        if column not in head:
            raise UserError(f"{name} has no column {shown(column)}: choose from {', '.join(head)[:300]}.")
        at = head.index(column)
        for row in rows:
            # A comma in a sentence that is not quoted parts nothing where there is one column.
            yield parts.join(row) if len(head) == 1 else row[at] if at < len(row) else ""
    except csv.Error as error:
        raise UserError(f"{name} is no valid CSV ({error}): mend it or use a .txt file.") from None


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)


def _json(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """The texts of a list, of the list under a key, or under a key of the objects in a list or an object."""
    broken = UserError(f"{name} is no valid JSON: mend it or use a .txt file.")
    decode = codecs.getincrementaldecoder("utf-8-sig")().decode
    inside: list[str] = []  # the brackets that are open
    key, rest, met = "", "", False
    expects_key = False
    while True:
        piece = file.read(_PIECE)
        try:
            text = rest + decode(piece, not piece)
        except UnicodeDecodeError:
            raise UserError(f"{name} is no UTF-8 text: save it as UTF-8.") from None
        end = 0
        for found in _TOKEN.finditer(text):
            if piece and found.end() == len(text):
                break  # it may go on in the next piece
            if text[end : found.start()].strip():
                if piece:
                    break  # half of a text: so does that
                raise broken
            end, token = found.end(), found[0]
            if token in "[{":
                inside.append(token)
                expects_key = token == "{"
            elif token in "]}":
                if not inside or inside.pop() != {"]": "[", "}": "{"}[token]:
                    raise broken
                expects_key = False
            elif token == ",":
                expects_key = bool(inside) and inside[-1] == "{"
            elif token == ":":
                continue
            elif expects_key:
                try:
                    key, expects_key = json.loads(token), False
                except ValueError:
                    raise broken from None
            elif "".join(inside) == "[" or ("".join(inside) in ("{[", "[{", "{{") and _wanted(key, column)):
                column = column or (key if len(inside) == 2 else None)
                met = True
                try:
                    yield json.loads(token)
                except ValueError:
                    raise broken from None
        rest = text[end:]
        if not piece:
            if rest.strip() or inside:
                raise broken
            break
        if len(rest) > 4 * _PIECE:
            raise broken
    if not met:
        raise UserError(f"{name} holds no list of prompts{f' under {shown(column)}' if column else ''}.")


def _parquet(file: IO[bytes], column: str | None, name: str) -> Iterator[Any]:
    """A column, a batch of rows at a time."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(
            f"{name} is a parquet file, for which pyarrow is wanted: pip install pyarrow."
        ) from None
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        column = column or (names[0] if len(names) == 1 else _known(names, name))
        if column not in names:
            raise UserError(f"{name} has no column {shown(column)}: choose from {', '.join(names)[:300]}.")
        for batch in table.iter_batches(batch_size=4096, columns=[column]):
            yield from batch.column(0).to_pylist()
    except ArrowInvalid as error:
        raise UserError(f"{name} is broken ({str(error)[:80]}): write it anew.") from None


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
        raise UserError(f"Choose the column of {name} that holds the prompts: {', '.join(names)[:300]}.")
    return known
