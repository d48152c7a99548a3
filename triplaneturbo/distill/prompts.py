"""Lists of prompts as people have them: pasted, or in .txt, .csv, .json and .jsonl files.

Nothing is dropped silently: blanks, duplicates, what is no text and what is too long are counted, and what
was decided for the user is told in `notes`. Files are read up to `MOST_BYTES`; larger ones are for corpus.py.
Nothing heavy is imported.

Pasted text and .txt files may hold templates (templates.py): "a {red|blue} {animal}", with {animal: cat, dog}
on a line of its own.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from triplaneturbo.distill import tables
from triplaneturbo.distill.templates import Templates
from triplaneturbo.errors import UserError
from triplaneturbo.request import PROMPT_LIMIT, shown, tidy_prompt

MOST_BYTES = 16 * 2**20
MOST_PROMPTS = 100_000
SUFFIXES = (".txt", ".csv", ".json", ".jsonl")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class PromptList:
    """Prompts, and what became of everything else.

    Attributes:
        prompts: tidied, each once, in their order.
        blanks: lines or cells with nothing in them.
        duplicates: what was there before, but for the case of its letters.
        wrong: what is no text: numbers, lines without a letter, with control characters or with a template
            that means nothing.
        too_long: longer than 1000 characters.
        notes: sentences on what was decided for the user.
    """

    prompts: tuple[str, ...]
    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: "30 prompts; left out: 2 blank, 1 twice, 1 no text, 1 too long"."""
        out = {
            "blank": self.blanks,
            "twice": self.duplicates,
            "no text": self.wrong,
            f"longer than {PROMPT_LIMIT} characters": self.too_long,
        }
        told = ", ".join(f"{count} {what}" for what, count in out.items() if count)
        count = how_many(len(self.prompts))
        return f"{count}; left out: {told}" if told else count


@dataclass
class _Sieve:
    """Takes one thing after another for a prompt, and counts what is none."""

    prompts: dict[str, str] = field(default_factory=dict)  # by its folded form
    blanks: int = 0
    duplicates: int = 0
    wrong: int = 0
    too_long: int = 0

    def add(self, value: object) -> None:
        if value is None or (isinstance(value, str) and not value.strip()):
            self.blanks += 1
        elif not isinstance(value, str) or not is_text(value):
            self.wrong += 1
        elif len(value.strip()) > PROMPT_LIMIT:
            self.too_long += 1
        else:
            prompt = tidy_prompt(value.strip())
            if prompt.casefold() in self.prompts:
                self.duplicates += 1
            else:
                self.prompts[prompt.casefold()] = prompt

    def list(self, notes: Iterable[str] = ()) -> PromptList:
        return PromptList(
            tuple(self.prompts.values()),
            self.blanks,
            self.duplicates,
            self.wrong,
            self.too_long,
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
    sieve, templates = _Sieve(), Templates(text.splitlines())
    for line in templates.lines:
        prompts = templates.expand(line)
        if not prompts:
            sieve.wrong += 1
        for prompt in prompts:
            sieve.add(prompt)
        _check_count(sieve)
    return sieve.list(templates.notes)


def read_file(path: Path, column: str | None = None) -> PromptList:
    """The prompts of a .txt, .csv, .json or .jsonl file.

    Args:
        column: of a table, or the key of a list; None: the one that is called prompt, caption or the like, or
            the only one. See `columns`.

    Raises:
        UserError: the file cannot be read, is no such file, is too large, or a column has to be chosen.
    """
    kind, text = _text_of(path)
    if kind == ".txt":
        if column is not None:
            raise UserError(f"{shown(str(path))} is a list of lines and has no columns: choose none.")
        return read_text(text)
    values, notes = tables.values(kind, text, column, str(path))
    sieve = _Sieve()
    for value in values:
        sieve.add(value)
        _check_count(sieve)
    return sieve.list(notes)


def columns(path: Path) -> list[str]:
    """The columns of a file that can be chosen from; [] where there is no choice.

    Raises:
        UserError: as `read_file`.
    """
    kind, text = _text_of(path)
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
    if len(sieve.prompts) > MOST_PROMPTS:
        raise UserError(
            f"There are more than {MOST_PROMPTS:,} prompts: give them to `python -m triplaneturbo finetune"
            " --corpus`, which streams them."
        )


def _text_of(path: Path) -> tuple[str, str]:
    """The kind of a file and its text.

    Raises:
        UserError: it cannot be read, or is no text of that kind.
    """
    name = shown(str(path))
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UserError(f"{name} should end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot read {name}: {reason}; name a file of prompts.") from None
    if data[:4] == b"PK\x03\x04" or data[:2] == b"\x1f\x8b":
        raise UserError(f"{name} is a packed archive, whatever its name says: unpack it first.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name} is UTF-16 text: save it as UTF-8.")
    if b"\0" in data:
        raise UserError(f"{name} holds NUL bytes, so it is no UTF-8 text: save it as UTF-8.")
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{name} is larger than {MOST_BYTES >> 20} MB: give fewer prompts, or a .txt or .jsonl file to"
            " `python -m triplaneturbo finetune --corpus`, which streams it."
        )
    try:
        return kind, data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is no UTF-8 text: save it as UTF-8.") from None
