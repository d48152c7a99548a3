"""Prompts in tables: .csv, .json and .jsonl, with a column to choose. Imports nothing heavy.

JSON may be a list of texts or of objects; an object of lists, as public prompt libraries have it (train, val,
test); an object of texts, or of objects, by their ids; or one object that has a prompt.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

# What columns of prompts are called, the likeliest first.
KNOWN = ("prompt", "prompts", "caption", "captions", "text", "train", "description", "title", "name")
SEEDS = ("seed", "seeds")
NAMES = ("name", "id")  # of the file to make, in a batch to generate
_LONGEST_HEAD = 40  # characters of a column's name


@dataclass(frozen=True)
class Row:
    """What a table says of one mesh to generate: cells as they stand, None where there is none."""

    prompt: Any
    seed: Any = None
    name: Any = None


@dataclass(frozen=True)
class _Table:
    """A table.

    Attributes:
        names: of the columns; [] if there is one that has none.
        rows: cells, a column each.
        notes: sentences on what was decided.
        ids: of the rows, where a JSON object has them for keys.
    """

    names: list[str]
    rows: list[tuple[Any, ...]]
    notes: list[str] = field(default_factory=list)
    ids: list[str] | None = None


class _Bare(tuple[Any, ...]):
    """The cells of a value that stands among objects and is none: itself in every column."""


def values(kind: str, text: str, column: str | None, name: str) -> tuple[list[Any], list[str]]:
    """What a column holds, texts or not, and sentences on what was decided.

    Args:
        kind: ".csv", ".json" or ".jsonl".
        name: of the file, for errors.

    Raises:
        UserError: the text is none of that kind, or a column has to be chosen.
    """
    table = _read(kind, text, name)
    at = _choose(table, column, name)
    names, notes = table.names, list(table.notes)
    if len(names) > 1 and column is None:
        others = ", ".join(other for other in names if other != names[at])
        notes.append(f"The prompts are taken from {names[at]}; there is also {others[:200]}.")
    return [row[at] for row in table.rows if row[at] is not _NONE], notes


def batch(kind: str, text: str, column: str | None, name: str) -> tuple[list[Row], list[str]]:
    """The rows of a batch to generate: prompts as `values` has them, seeds and names.

    Raises:
        UserError: the text is none of that kind, or a column has to be chosen.
    """
    table = _read(kind, text, name)
    at = _choose(table, column, name)
    names, notes = table.names, list(table.notes)
    seed, called = _find(names, SEEDS, at), _find(names, NAMES, at)
    rows = []
    for number, row in enumerate(table.rows):
        if row[at] is _NONE:
            continue
        given = (None if index is None or isinstance(row, _Bare) else row[index] for index in (seed, called))
        cells = [None if cell is _NONE else cell for cell in given]
        if cells[1] is None and table.ids is not None:
            cells[1] = table.ids[number]
        rows.append(Row(row[at], *cells))
    if len(names) > 1 or table.ids is not None:
        told = [f"prompts from {names[at]}"] if names else []
        told += [f"seeds from {names[seed]}"] if seed is not None else []
        told += [f"names from {names[called]}"] if called is not None else []
        told += ["names from the keys"] if called is None and table.ids is not None else []
        others = [other for i, other in enumerate(names) if i not in (at, seed, called)]
        unused = f"; not used: {', '.join(others)[:200]}" if others else ""
        notes.append(f"Read: {', '.join(told)}{unused}.")
    return rows, notes


def columns(kind: str, text: str, name: str) -> list[str]:
    """The names of a table's columns; [] where it has none.

    Raises:
        UserError: the text is none of that kind.
    """
    return _read(kind, text, name).names


_NONE = object()  # where a list is shorter than another


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
        known = known_column(list(content))
        if known is not None and isinstance(content[known], str):
            return _of_values([content])
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists) == 1:
            table = _of_values(next(iter(lists.values())))
            return table if table.names else replace(table, names=list(lists))
        if lists:
            texts = [_texts(value) for value in lists.values()]
            longest = max(map(len, texts))
            filled = [value + [_NONE] * (longest - len(value)) for value in texts]
            return _Table(list(lists), list(zip(*filled, strict=True)))
        return replace(_of_values(list(content.values())), ids=list(content))
    raise UserError(f"{shown(name)} holds no list of prompts: a JSON list of texts is wanted.")


def _texts(values: list[Any]) -> list[Any]:
    """A list's texts, also where they are a known column of objects."""
    table = _of_values(values)
    if not table.names:
        return values
    known = known_column(table.names)
    at = table.names.index(known) if known is not None else 0
    return [row[at] for row in table.rows]


def _of_values(values: list[Any]) -> _Table:
    """A table of texts, or of objects with their keys for columns."""
    names = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
    if not names:
        return _Table([], [(value,) for value in values])
    rows = [
        tuple(value.get(key) for key in names) if isinstance(value, dict) else _Bare((value,) * len(names))
        for value in values
    ]
    return _Table(names, rows)


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
    notes = [f"{broken} line{'s are' if broken > 1 else ' is'} no valid JSON and left out."] if broken else []
    return replace(_of_values(found), notes=notes)


def _read_csv(text: str, name: str) -> _Table:
    delimiter, text = _delimiter(text)
    try:
        rows = [row or [""] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{shown(name)} is no valid CSV ({error}): mend it or use a .txt file.") from None
    if not rows:
        return _Table([], [])
    head = [cell.strip() for cell in rows[0]]
    if not _is_head(head):
        if all(len(row) == 1 for row in rows):
            return _Table([], [(row[0],) for row in rows])
        names = [str(number) for number in range(1, max(map(len, rows)) + 1)]
        return _Table(names, [_cells(row, len(names)) for row in rows])
    notes = [f"The first row names the columns: {', '.join(head)[:200]}."]
    if len(head) == 1:  # a comma in a sentence that is not quoted parts nothing
        return _Table(head, [(delimiter.join(row),) for row in rows[1:]], notes)
    return _Table(head, [_cells(row, len(head)) for row in rows[1:]], notes)


_EXCEL = re.compile(r'"?sep=(.)"?[,;\t|]*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')


def _delimiter(text: str) -> tuple[str, str]:
    """What parts the cells of a CSV, and the text without the line "sep=;" by which Excel says so."""
    first, _, rest = text.partition("\n")
    said = said_delimiter(first)
    return (said, rest) if said is not None else (delimiter(first), text)


def said_delimiter(line: str) -> str | None:
    """What parts the cells of a CSV whose first line is Excel's "sep=;"; None if it is not that."""
    excel = _EXCEL.fullmatch(line.rstrip("\r\n"))
    return excel[1] if excel else None


def delimiter(line: str) -> str:
    """What parts the cells of a CSV, by its first line: a comma unless that has more of something else."""
    bare = _QUOTED.sub("", line)
    counts = Counter(character for character in bare if character in ",;\t|")
    if " " in bare.partition("|")[0].strip():
        del counts["|"]  # of a sentence, not of a table
    return max(",;\t|", key=lambda character: counts[character])


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


def _find(names: list[str], wanted: Sequence[str], taken: int) -> int | None:
    """Which column is called as wanted, the likeliest first, and is not taken; None if there is none."""
    folded = {name.casefold(): i for i, name in reversed(list(enumerate(names))) if i != taken}
    return next((folded[word] for word in wanted if word in folded), None)


def _choose(table: _Table, column: str | None, name: str) -> int:
    """Which column holds the prompts."""
    names = table.names
    if not names:
        if column is not None:
            raise UserError(f"{shown(name)} has no columns to choose from: choose none.")
        return 0
    if column is not None:
        if column not in names:
            raise UserError(
                f"{shown(name)} has no column {shown(column)}: choose from {', '.join(names)[:300]}."
            )
        return names.index(column)
    known = known_column(names)
    if known is not None:
        return names.index(known)
    # The only column in which a cell has several words, or the only one there is.
    wordy = [at for at in range(len(names)) if any(_has_words(row[at]) for row in table.rows)]
    if len(names) > 1 and len(wordy) != 1:
        raise UserError(
            f"Choose the column of {shown(name)} that holds the prompts: {', '.join(names)[:300]}."
        )
    return wordy[0] if wordy else 0


def _has_words(cell: object) -> bool:
    return isinstance(cell, str) and len(cell.split()) > 1 and not _is_number(cell)
