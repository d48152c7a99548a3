"""Prompts in tables: .csv, .json and .jsonl files with selectable columns. Imports nothing heavy.

JSON may be a list of texts or objects; an object of lists, as in public prompt libraries (train, val, test);
an object of texts or objects by id; or a single object with a prompt.
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

# Names of prompt columns, most likely first.
KNOWN = ("prompt", "prompts", "caption", "captions", "text", "train", "description", "title", "name")
SEEDS = ("seed", "seeds")
NAMES = ("name", "id")  # names of the generated files in a batch
_LONGEST_HEAD = 40  # characters of a column's name


@dataclass(frozen=True)
class Row:
    """Unparsed cells of one row of a batch; None for missing cells."""

    prompt: Any
    seed: Any = None
    name: Any = None


@dataclass(frozen=True)
class _Table:
    """A table.

    Attributes:
        names: column names; [] for a single column without a name.
        rows: one tuple of cells per row.
        notes: descriptions of automatic decisions.
        ids: row ids, if the rows are values of a JSON object.
    """

    names: list[str]
    rows: list[tuple[Any, ...]]
    notes: list[str] = field(default_factory=list)
    ids: list[str] | None = None


class _Scalar(tuple[Any, ...]):
    """Row of a non-object value among objects: the value itself in every column."""


def values(kind: str, text: str, column: str | None, name: str) -> tuple[list[Any], list[str]]:
    """Return the values of a column, text or not, and notes on automatic decisions.

    Args:
        kind: ".csv", ".json" or ".jsonl".
        text: content of the file.
        column: see `prompt_list.read_file`.
        name: name of the file in messages.

    Raises:
        UserError: if the text is not of that type, or a column must be chosen.
    """
    table = _read(kind, text, name)
    at = _choose(table, column, name)
    names, notes = table.names, list(table.notes)
    if len(names) > 1 and column is None:
        others = ", ".join(other for other in names if other != names[at])
        notes.append(f"The prompts are taken from {names[at]}; other columns: {others[:200]}.")
    return [row[at] for row in table.rows if row[at] is not _MISSING], notes


def batch(kind: str, text: str, column: str | None, name: str) -> tuple[list[Row], list[str]]:
    """Return the rows of a batch for generation (prompts, seeds, names), and notes; see `values`.

    Raises:
        UserError: if the text is not of that type, or a column must be chosen.
    """
    table = _read(kind, text, name)
    at = _choose(table, column, name)
    names, notes = table.names, list(table.notes)
    seed, name_column = _find(names, SEEDS, at), _find(names, NAMES, at)
    rows = []
    for number, row in enumerate(table.rows):
        if row[at] is _MISSING:
            continue
        given = (
            None if index is None or isinstance(row, _Scalar) else row[index] for index in (seed, name_column)
        )
        cells = [None if cell is _MISSING else cell for cell in given]
        if cells[1] is None and table.ids is not None:
            cells[1] = table.ids[number]
        rows.append(Row(row[at], *cells))
    if len(names) > 1 or table.ids is not None:
        sources = [f"prompts from {names[at]}"] if names else []
        sources += [f"seeds from {names[seed]}"] if seed is not None else []
        sources += [f"names from {names[name_column]}"] if name_column is not None else []
        sources += ["names from the keys"] if name_column is None and table.ids is not None else []
        others = [other for i, other in enumerate(names) if i not in (at, seed, name_column)]
        unused = f"; not used: {', '.join(others)[:200]}" if others else ""
        notes.append(f"Read: {', '.join(sources)}{unused}.")
    return rows, notes


def columns(kind: str, text: str, name: str) -> list[str]:
    """Return the names of a table's columns; [] if it has none.

    Raises:
        UserError: if the text is not of that type.
    """
    return _read(kind, text, name).names


_MISSING = object()  # cell beyond the end of a shorter list


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
            f"{shown(name)} is not valid JSON ({reason[:80]}): fix it or use a .txt file."
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
            filled = [value + [_MISSING] * (longest - len(value)) for value in texts]
            return _Table(list(lists), list(zip(*filled, strict=True)))
        return replace(_of_values(list(content.values())), ids=list(content))
    raise UserError(f"{shown(name)} contains no list of prompts: it should be a JSON list of texts.")


def _texts(values: list[Any]) -> list[Any]:
    """Return a list's texts, or a known column of its objects."""
    table = _of_values(values)
    if not table.names:
        return values
    known = known_column(table.names)
    at = table.names.index(known) if known is not None else 0
    return [row[at] for row in table.rows]


def _of_values(values: list[Any]) -> _Table:
    """Build a table of texts, or of objects with their keys as columns."""
    names = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
    if not names:
        return _Table([], [(value,) for value in values])
    rows = [
        tuple(value.get(key) for key in names) if isinstance(value, dict) else _Scalar((value,) * len(names))
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
        raise UserError(f"{shown(name)} contains no valid JSON on any line: fix it or use a .txt file.")
    notes = (
        [f"{broken} line{'s are' if broken > 1 else ' is'} not valid JSON and left out."] if broken else []
    )
    return replace(_of_values(found), notes=notes)


def _read_csv(text: str, name: str) -> _Table:
    delimiter, text = _delimiter(text)
    try:
        rows = [row or [""] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{shown(name)} is not valid CSV ({error}): fix it or use a .txt file.") from None
    if not rows:
        return _Table([], [])
    head = [cell.strip() for cell in rows[0]]
    if not _is_head(head):
        if all(len(row) == 1 for row in rows):
            return _Table([], [(row[0],) for row in rows])
        names = [str(number) for number in range(1, max(map(len, rows)) + 1)]
        return _Table(names, [_cells(row, len(names)) for row in rows])
    notes = [f"The first row is the header: {', '.join(head)[:200]}."]
    if len(head) == 1:  # in a single column, unquoted delimiters are part of the text
        return _Table(head, [(delimiter.join(row),) for row in rows[1:]], notes)
    return _Table(head, [_cells(row, len(head)) for row in rows[1:]], notes)


_EXCEL = re.compile(r'"?sep=(.)"?[,;\t|]*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')


def _delimiter(text: str) -> tuple[str, str]:
    """Return the delimiter of a CSV, and its text without Excel's "sep=;" line."""
    first, _, rest = text.partition("\n")
    declared = declared_delimiter(first)
    return (declared, rest) if declared is not None else (delimiter(first), text)


def declared_delimiter(line: str) -> str | None:
    """Return the delimiter declared by Excel's first line "sep=;"; None for any other line."""
    excel = _EXCEL.fullmatch(line.rstrip("\r\n"))
    return excel[1] if excel else None


def delimiter(line: str) -> str:
    """Guess the delimiter of a CSV from its first line: the most frequent candidate, or a comma."""
    bare = _QUOTED.sub("", line)
    counts = Counter(character for character in bare if character in ",;\t|")
    if " " in bare.partition("|")[0].strip():
        del counts["|"]  # part of a sentence, not a delimiter
    return max(",;\t|", key=lambda character: counts[character])


def _is_head(row: list[str]) -> bool:
    """Return whether a table's first row is a header."""
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
    """Return the column named prompt, caption or similar; None if there is none."""
    folded = {known.casefold(): known for known in reversed(names)}
    return next((folded[word] for word in KNOWN if word in folded), None)


def _find(names: list[str], wanted: Sequence[str], taken: int) -> int | None:
    """Return the index of the first wanted column other than `taken`; None if there is none."""
    folded = {name.casefold(): i for i, name in reversed(list(enumerate(names))) if i != taken}
    return next((folded[word] for word in wanted if word in folded), None)


def _choose(table: _Table, column: str | None, name: str) -> int:
    """Return the index of the prompt column."""
    names = table.names
    if not names:
        if column is not None:
            raise UserError(f"{shown(name)} has no columns: do not choose a column.")
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
    # The only column with multi-word cells, or the only column.
    wordy = [at for at in range(len(names)) if any(_has_words(row[at]) for row in table.rows)]
    if len(names) > 1 and len(wordy) != 1:
        raise UserError(
            f"Choose the column of {shown(name)} that contains the prompts: {', '.join(names)[:300]}."
        )
    return wordy[0] if wordy else 0


def _has_words(cell: object) -> bool:
    return isinstance(cell, str) and len(cell.split()) > 1 and not _is_number(cell)
