"""Prompts in tables: .csv, .json and .jsonl, with a column to choose. Imports nothing heavy.

JSON may be a list of texts or of objects; an object of lists, as public prompt libraries have it (train, val,
test); or an object of texts by their ids.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

# What columns of prompts are called, the likeliest first.
KNOWN = ("prompt", "prompts", "caption", "captions", "text", "train", "description", "title", "name")
_LONGEST_HEAD = 40  # characters of a column's name


def values(kind: str, text: str, column: str | None, name: str) -> tuple[list[Any], list[str]]:
    """What a column holds, texts or not, and sentences on what was decided.

    Args:
        kind: ".csv", ".json" or ".jsonl".
        name: of the file, for errors.

    Raises:
        UserError: the text is none of that kind, or a column has to be chosen.
    """
    names, rows, notes = _read(kind, text, name)
    if not names:
        if column is not None:
            raise UserError(f"{shown(name)} has no columns to choose from: choose none.")
        return [row for (row,) in rows], notes
    chosen = _choose(names, column, name)
    if len(names) > 1 and column is None:
        others = ", ".join(other for other in names if other != chosen)
        notes.append(f"The prompts are taken from {chosen}; there is also {others[:200]}.")
    at = names.index(chosen)
    return [row[at] for row in rows if kind == ".csv" or row[at] is not _NONE], notes


def columns(kind: str, text: str, name: str) -> list[str]:
    """The names of a table's columns; [] where it has none.

    Raises:
        UserError: the text is none of that kind.
    """
    return _read(kind, text, name)[0]


_NONE = object()  # where a list is shorter than another
_Table = tuple[list[str], list[tuple[Any, ...]], list[str]]  # names or [], rows, notes


def _read(kind: str, text: str, name: str) -> _Table:
    if kind == ".csv":
        return _read_csv(text, name)
    if kind == ".jsonl":
        return _read_lines(text, name)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise UserError(
            f"{shown(name)} is no valid JSON ({reason[:80]}): mend it or use a .txt file."
        ) from None
    if isinstance(content, list):
        return _of_values(content)
    if isinstance(content, dict) and content:
        lists = {key: _texts(value) for key, value in content.items() if isinstance(value, list)}
        if lists:
            longest = max(map(len, lists.values()))
            filled = [value + [_NONE] * (longest - len(value)) for value in lists.values()]
            return list(lists), list(zip(*filled, strict=True)), []
        return [], [(value,) for value in content.values()], []
    raise UserError(f"{shown(name)} holds no list of prompts: a JSON list of texts is wanted.")


def _texts(values: list[Any]) -> list[Any]:
    """A list's texts, also where they are a known column of objects."""
    names, rows, _ = _of_values(values)
    if not names:
        return values
    at = next((names.index(known) for known in KNOWN if known in names), 0)
    return [row[at] for row in rows]


def _of_values(values: list[Any]) -> _Table:
    """A table of texts, or of objects with their keys for columns."""
    names = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
    if not names:
        return [], [(value,) for value in values], []
    rows = [
        tuple(value.get(key) for key in names) if isinstance(value, dict) else (value,) * len(names)
        for value in values
    ]
    return names, rows, []


def _read_lines(text: str, name: str) -> _Table:
    found, broken = [], 0
    for line in text.splitlines():
        if line.strip():
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                broken += 1
    if broken and not found:
        raise UserError(f"{shown(name)} is no valid JSON on any line: mend it or use a .txt file.")
    names, rows, notes = _of_values(found)
    if broken:
        notes.append(f"{broken} line{'s are' if broken > 1 else ' is'} no valid JSON and left out.")
    return names, rows, notes


def _read_csv(text: str, name: str) -> _Table:
    sample = text[:4096]
    try:
        dialect: Any = csv.Sniffer().sniff(
            sample.splitlines()[0] if sample.strip() else ",", delimiters=",;\t"
        )
    except csv.Error:
        dialect = csv.excel
    try:
        # Only the delimiter is taken over: what else the sniffer guesses is wrong more often than not.
        rows = [row or [""] for row in csv.reader(io.StringIO(text), delimiter=dialect.delimiter)]
    except csv.Error as error:
        raise UserError(f"{shown(name)} is no valid CSV ({error}): mend it or use a .txt file.") from None
    if not rows:
        return [], [], []
    head = [cell.strip() for cell in rows[0]]
    if not _is_head(head):
        if all(len(row) == 1 for row in rows):
            return [], [(row[0],) for row in rows], []
        names = [str(number) for number in range(1, max(map(len, rows)) + 1)]
        return names, [_cells(row, len(names)) for row in rows], []
    notes = [f"The first row names the columns: {', '.join(head)[:200]}."]
    if len(head) == 1:  # a comma in a sentence that is not quoted parts nothing
        return head, [(dialect.delimiter.join(row),) for row in rows[1:]], notes
    return head, [_cells(row, len(head)) for row in rows[1:]], notes


def _is_head(row: list[str]) -> bool:
    """Whether a table's first row names its columns."""
    if any(cell.casefold() in KNOWN for cell in row):
        return True
    short = all(0 < len(cell) <= _LONGEST_HEAD and " " not in cell and not _is_number(cell) for cell in row)
    return len(row) > 1 and short and len(set(row)) == len(row)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cells(row: list[str], count: int) -> tuple[str, ...]:
    return tuple((row + [""] * count)[:count])


def known_column(names: Sequence[str]) -> str | None:
    """The column that is called prompt, caption or the like; None if there is none."""
    folded = {known.casefold(): known for known in reversed(names)}
    return next((folded[word] for word in KNOWN if word in folded), None)


def _choose(names: list[str], column: str | None, name: str) -> str:
    if column is not None:
        if column not in names:
            raise UserError(
                f"{shown(name)} has no column {shown(column)}: choose from {', '.join(names)[:300]}."
            )
        return column
    known = known_column(names)
    if known is None and len(names) > 1:
        raise UserError(
            f"Choose the column of {shown(name)} that holds the prompts: {', '.join(names)[:300]}."
        )
    return known or names[0]
