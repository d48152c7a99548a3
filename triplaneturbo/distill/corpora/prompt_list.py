"""Lists of prompts as people have them: pasted, or in .txt, .csv, .json and .jsonl files.

Nothing is dropped silently: blanks, comments, duplicates, what is no text and what is too long are counted,
and what was decided for the user is told in `notes`. Files are read up to `MOST_BYTES`; larger ones are for
corpus.py. Nothing heavy is imported.

Pasted text and .txt files have a prompt a line. They may hold templates (templates.py), such as
"a {red|blue} {animal}" with {animal: cat, dog} on a line of its own; comments, which begin with "#"; and an
id before each prompt, as in "17|a red duck". A batch to generate (`read_batch`) takes seeds and names, too.
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
    """A prompt, tidied, and in a batch its seed (None: not given) and its name ("": not given)."""

    prompt: str
    seed: int | None = None
    name: str = ""


@dataclass(frozen=True)
class PromptList:
    """Prompts, and what became of everything else.

    Attributes:
        lines: each once, in their order.
        blanks: lines or cells with nothing in them.
        duplicates: what was there before, but for the case of its letters; in a batch with the same seed and
            name.
        wrong: what is no text: numbers, lines without a letter, with control characters or with a template
            that means nothing.
        too_long: longer than 1000 characters.
        comments: lines that begin with "#".
        notes: sentences on what was decided for the user.
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
        """The prompts of all lines."""
        return tuple(line.prompt for line in self.lines)

    @property
    def summary(self) -> str:
        """One line: "30 prompts; left out: 2 blank, 1 twice, 1 no text, 1 too long"."""
        out = {
            "blank": self.blanks,
            "twice": self.duplicates,
            "no text": self.wrong,
            f"longer than {PROMPT_LIMIT} characters": self.too_long,
            "commented out": self.comments,
        }
        told = ", ".join(f"{count} {what}" for what, count in out.items() if count)
        count = how_many(len(self.prompts))
        return f"{count}; left out: {told}" if told else count


@dataclass
class _Sieve:
    """Takes one thing after another for a prompt, and counts what is none."""

    lines: dict[tuple[Any, ...], Line] = field(default_factory=dict)  # by what makes a line another
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
    """So many prompts, in words: "1 prompt", "1,200 prompts"."""
    return f"{number:,} prompt{'' if number == 1 else 's'}"


def is_text(value: str) -> bool:
    """Whether a text can be a prompt: it has a letter or a symbol such as an emoji, nothing unprintable."""
    if value.isprintable() and _LETTER.search(value):
        return True
    kinds = {unicodedata.category(character) for character in value if character not in "\t\r\n"}
    return any(kind[0] == "L" or kind == "So" for kind in kinds) and not kinds & {"Cc", "Cs", "Co"}


def read_text(text: str) -> PromptList:
    """The prompts of a pasted text, one a line, templates expanded.

    Raises:
        UserError: it is too long.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"The text has {len(text):,} characters; paste at most {MOST_BYTES:,}.")
    return _of_text(text, batch=False)


def read_file(path: Path, column: str | None = None) -> PromptList:
    """The prompts of a .txt, .csv, .json or .jsonl file.

    Args:
        column: of a table, or the key of a list; None: the one that is called prompt, caption or the like, or
            the only one. See `columns`.

    Raises:
        UserError: the file cannot be read, is no such file, is too large, or a column has to be chosen.
    """
    kind, text = _text_of(path, _STREAMED)
    if kind == ".txt":
        _no_column(path, column)
        return _of_text(text, batch=False)
    values, notes = tables.values(kind, text, column, str(path))
    sieve = _Sieve()
    for value in values:
        sieve.add(value)
        _check_count(sieve)
    return sieve.list(notes)


def read_batch(path: Path, column: str | None = None) -> PromptList:
    """The lines of a batch to generate, with their seeds and names: the same files as `read_file` takes.

    A seed comes from the column "seed"; a name from the column "name" or else "id", from the ids of a JSON
    object, or from lines of the form id|prompt.

    Args:
        path: "-": standard input, a prompt a line.
        column: as for `read_file`.

    Raises:
        UserError: as `read_file`, or a seed is no whole number.
    """
    kind, text = _text_of(path)
    if kind == ".txt":
        _no_column(path, column)
        return _of_text(text, batch=True)
    rows, notes = tables.batch(kind, text, column, str(path))
    sieve = _Sieve()
    for row in rows:
        sieve.add(row.prompt, _seed(row, str(path)), _name(row.name))
    return sieve.list(notes)


def text_of(path: Path) -> str:
    """The text of a list, as it stands in its file.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    return _text_of(path)[1]


def columns(path: Path) -> list[str]:
    """The columns of a file that can be chosen from; [] where there is no choice.

    Raises:
        UserError: as `read_file`.
    """
    kind, text = _text_of(path, _STREAMED)
    names = [] if kind == ".txt" else tables.columns(kind, text, str(path))
    return names if len(names) > 1 else []


def split(prompts: Sequence[str], share: float, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is learned, and what is held out for judging, both in the order of `prompts`.

    Args:
        share: of the prompts to hold out, 0 to 0.9; where it is not 0 and there are two prompts or more, at
            least one of each.

    Raises:
        UserError: the share cannot be.
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


def _check_count(sieve: _Sieve) -> None:
    if len(sieve.lines) > MOST_PROMPTS:
        raise UserError(
            f"There are more than {MOST_PROMPTS:,} prompts: give them to `python -m triplaneturbo finetune"
            " --corpus`, which streams them."
        )


_STREAMED = (
    "give fewer prompts, or a .txt or .jsonl file to `python -m triplaneturbo finetune --corpus`, which"
    " streams it"
)


def _text_of(path: Path, too_large: str = "give fewer prompts") -> tuple[str, str]:
    """The kind of a file and its text; a name without a suffix, as of a pipe, is that of a list of lines.

    Raises:
        UserError: it cannot be read, or is no text of that kind.
    """
    kind = path.suffix.lower() or ".txt"
    if kind not in SUFFIXES:
        raise UserError(f"{shown(str(path))} should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    return kind, decode(read_bytes(path), str(path), too_large)


def _of_text(text: str, batch: bool) -> PromptList:
    """The prompts of a text, one a line; in a batch, ids are names."""
    every = text.splitlines()
    kept = without_comments(every)
    sieve, templates = _Sieve(comments=len(every) - len(kept)), Templates(kept)
    lines, notes = with_ids(templates.lines)
    for line in lines:
        prompts = templates.expand(line.text)
        if not prompts:
            sieve.wrong += 1
        for prompt in prompts:
            sieve.add(prompt, name=line.id if batch else "")
        _check_count(sieve)
    return sieve.list([*notes, *templates.notes])


def _no_column(path: Path, column: str | None) -> None:
    if column is not None:
        raise UserError(f"{shown(str(path))} is a list of lines and has no columns: choose none.")


def _seed(row: tables.Row, file: str) -> int | None:
    """A cell as a seed: also "7", and "7.0" as spreadsheets write it."""
    if row.seed is None or (isinstance(row.seed, str) and not row.seed.strip()):
        return None
    try:
        number = float(row.seed)
        if not isinstance(row.seed, bool) and number.is_integer():
            return int(row.seed) if isinstance(row.seed, int) else int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(
        f"The seed of {shown(row.prompt)} in {shown(file)} should be a whole number, not {shown(row.seed)}."
    )


def _name(value: object) -> str:
    """A cell as a name; what is neither text nor a number is none."""
    if isinstance(value, str):
        return value.strip()
    return str(value)[:100] if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
