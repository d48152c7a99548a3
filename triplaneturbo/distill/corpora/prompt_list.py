"""Prompt lists: pasted text, and .txt, .csv, .json and .jsonl files.

Nothing is dropped silently: blank values, comments, duplicates, values that are not text and prompts that are
too long are counted, and automatic decisions are described in `notes`. Files are limited to `MOST_BYTES`;
larger ones need corpus.py. Imports nothing heavy.

Pasted text and .txt files have one prompt per line. They may contain templates (templates.py), such as
"a {red|blue} {animal}" with {animal: cat, dog} on a line of its own; comments starting with "#"; and an id
before each prompt, as in "17|a red duck". Batches for generation (`read_batch`) also have seeds and names.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triplaneturbo.distill.corpora import tables
from triplaneturbo.distill.corpora.lines import with_ids, without_comments
from triplaneturbo.distill.corpora.templates import Templates
from triplaneturbo.distill.corpora.text_files import MOST_BYTES, decode, read_bytes
from triplaneturbo.errors import UserError
from triplaneturbo.request import PROMPT_LIMIT, shown, tidy_prompt

MOST_PROMPTS = 100_000
SUFFIXES = (".txt", ".csv", ".json", ".jsonl")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Line:
    """A normalized prompt and, in a batch, its optional seed and name (None and "" if not given)."""

    prompt: str
    seed: int | None = None
    name: str = ""


@dataclass(frozen=True)
class PromptList:
    """Distinct prompts, and counts of everything that was left out.

    Attributes:
        lines: the prompts, in order.
        blanks: empty lines or cells.
        duplicates: repeated prompts (ignoring case); in a batch, with the same seed and name.
        wrong: values that are not text: numbers, text without letters or with control characters, and invalid
            templates.
        too_long: prompts longer than 1000 characters.
        comments: lines starting with "#".
        notes: descriptions of automatic decisions.
    """

    lines: tuple[Line, ...]
    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0
    comments: int = 0
    notes: tuple[str, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts."""
        return tuple(line.prompt for line in self.lines)

    @property
    def summary(self) -> str:
        """One line: "30 prompts; left out: 2 blank, 1 duplicate, 1 not text"."""
        out = {
            "blank": self.blanks,
            "duplicate": self.duplicates,
            "not text": self.wrong,
            f"longer than {PROMPT_LIMIT} characters": self.too_long,
            "commented out": self.comments,
        }
        parts = ", ".join(f"{count} {what}" for what, count in out.items() if count)
        count = how_many(len(self.prompts))
        return f"{count}; left out: {parts}" if parts else count


@dataclass
class _Collector:
    """Collects prompts and counts values that are not prompts."""

    lines: dict[tuple[Any, ...], Line] = field(default_factory=dict)  # by the key that makes a line distinct
    comments: int = 0
    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0

    def add(self, value: object, seed: int | None = None, name: str = "") -> None:
        if value is None or (isinstance(value, str) and not value.strip()):
            self.blanks += 1
        elif not isinstance(value, str) or not is_text(value):
            self.wrong += 1
        elif len(value.strip()) > PROMPT_LIMIT:
            self.too_long += 1
        else:
            prompt = tidy_prompt(value.strip())
            key = (prompt.casefold(), seed, name)
            if key in self.lines:
                self.duplicates += 1
            else:
                self.lines[key] = Line(prompt, seed, name)

    def list(self, notes: Iterable[str] = ()) -> PromptList:
        return PromptList(
            tuple(self.lines.values()),
            self.blanks,
            self.duplicates,
            self.wrong,
            self.too_long,
            self.comments,
            tuple(notes),
        )


def how_many(number: int) -> str:
    """Format a count: "1 prompt", "1,200 prompts"."""
    return f"{number:,} prompt{'' if number == 1 else 's'}"


def is_text(value: str) -> bool:
    """Return whether a text can be a prompt: it has a letter or emoji and no control characters."""
    if value.isprintable() and _LETTER.search(value):
        return True
    kinds = {unicodedata.category(character) for character in value if character not in "\t\r\n"}
    return any(kind[0] == "L" or kind == "So" for kind in kinds) and not kinds & {"Cc", "Cs", "Co"}


def read_text(text: str) -> PromptList:
    """Parse pasted text with one prompt per line, expanding templates.

    Raises:
        UserError: if it is too long.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"The text has {len(text):,} characters; paste at most {MOST_BYTES:,}.")
    return _of_text(text, batch=False)


def read_file(path: Path, column: str | None = None) -> PromptList:
    """Read the prompts of a .txt, .csv, .json or .jsonl file.

    Args:
        path: the file.
        column: column of a table or key of a list; None for the one named prompt, caption or similar, or the
            only one. See `columns`.

    Raises:
        UserError: if the file is unreadable, of another type or too large, or a column must be chosen.
    """
    kind, text = _text_of(path, _STREAMED)
    if kind == ".txt":
        _no_column(path, column)
        return _of_text(text, batch=False)
    values, notes = tables.values(kind, text, column, str(path))
    collector = _Collector()
    for value in values:
        collector.add(value)
        _check_count(collector)
    return collector.list(notes)


def read_batch(path: Path, column: str | None = None) -> PromptList:
    """Read a batch for generation, with seeds and names, from the file types of `read_file`.

    Seeds come from the column "seed"; names from the column "name" or "id", from the keys of a JSON object,
    or from lines of the form id|prompt.

    Args:
        path: the file, or "-" for standard input with one prompt per line.
        column: see `read_file`.

    Raises:
        UserError: see `read_file`; also if a seed is not an integer.
    """
    kind, text = _text_of(path)
    if kind == ".txt":
        _no_column(path, column)
        return _of_text(text, batch=True)
    rows, notes = tables.batch(kind, text, column, str(path))
    collector = _Collector()
    for row in rows:
        collector.add(row.prompt, _seed(row, str(path)), _name(row.name))
    return collector.list(notes)


def text_of(path: Path) -> str:
    """Return the unparsed text of a file.

    Raises:
        UserError: if it cannot be read or is not text.
    """
    return _text_of(path)[1]


def columns(path: Path) -> list[str]:
    """Return the columns of a file to choose from; [] if there is no choice.

    Raises:
        UserError: see `read_file`.
    """
    kind, text = _text_of(path, _STREAMED)
    names = [] if kind == ".txt" else tables.columns(kind, text, str(path))
    return names if len(names) > 1 else []


def split(prompts: Sequence[str], share: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split prompts into training and held-out prompts, both in the order of `prompts`.

    Args:
        share: fraction to hold out, 0 to 0.9; if it is above 0 and there are at least two prompts, both parts
            have at least one.
        seed: seed of the random choice.

    Raises:
        UserError: if the share is invalid.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 0.9:
        raise UserError(f"The held-out share should be 0 to 0.9, not {shown(share)}.")
    count = round(share * len(prompts))
    if share > 0 and len(prompts) > 1:
        count = min(max(count, 1), len(prompts) - 1)
    held = set(random.Random(seed).sample(range(len(prompts)), count))
    return (
        tuple(prompt for i, prompt in enumerate(prompts) if i not in held),
        tuple(prompt for i, prompt in enumerate(prompts) if i in held),
    )


def _check_count(collector: _Collector) -> None:
    if len(collector.lines) > MOST_PROMPTS:
        raise UserError(
            f"There are more than {MOST_PROMPTS:,} prompts: use `python -m triplaneturbo finetune --corpus`,"
            " which streams them."
        )


_STREAMED = (
    "use fewer prompts, or a .txt or .jsonl file with `python -m triplaneturbo finetune --corpus`, which"
    " streams it"
)


def _text_of(path: Path, too_large: str = "use fewer prompts") -> tuple[str, str]:
    """Return the type and text of a file; names without a suffix (such as pipes) are lists of lines.

    Raises:
        UserError: if it cannot be read, or is not text of a supported type.
    """
    kind = path.suffix.lower() or ".txt"
    if kind not in SUFFIXES:
        raise UserError(f"{shown(str(path))} should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    return kind, decode(read_bytes(path), str(path), too_large)


def _of_text(text: str, batch: bool) -> PromptList:
    """Parse text with one prompt per line; in a batch, ids are names."""
    all_lines = text.splitlines()
    uncommented = without_comments(all_lines)
    collector, templates = _Collector(comments=len(all_lines) - len(uncommented)), Templates(uncommented)
    lines, notes = with_ids(templates.lines)
    for line in lines:
        prompts = templates.expand(line.text)
        if not prompts:
            collector.wrong += 1
        for prompt in prompts:
            collector.add(prompt, name=line.id if batch else "")
        _check_count(collector)
    return collector.list([*notes, *templates.notes])


def _no_column(path: Path, column: str | None) -> None:
    if column is not None:
        raise UserError(f"{shown(str(path))} is a list of lines without columns: do not choose a column.")


def _seed(row: tables.Row, file: str) -> int | None:
    """Parse a cell as a seed; also "7", and "7.0" as spreadsheets write it."""
    if row.seed is None or (isinstance(row.seed, str) and not row.seed.strip()):
        return None
    try:
        number = float(row.seed)
        if not isinstance(row.seed, bool) and number.is_integer():
            return int(row.seed) if isinstance(row.seed, int) else int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(
        f"The seed of {shown(row.prompt)} in {shown(file)} should be an integer, not {shown(row.seed)}."
    )


def _name(value: object) -> str:
    """Parse a cell as a name; "" if it is neither text nor a number."""
    if isinstance(value, str):
        return value.strip()
    return str(value)[:100] if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
