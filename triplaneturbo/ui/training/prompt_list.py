"""What is learned of a list of prompts, and what of it is left out and why: nothing goes without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.distill.corpora.prompt_list import (
    PromptList,
    columns,
    how_many,
    read_file,
    read_text,
    split,
    text_of,
)
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown
from triplaneturbo.toyworld.captions.advice import misfits
from triplaneturbo.ui.generate.panels import text

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.training_service import RunState

# What a page's text holds, as a request has at most a megabyte; more is for the command line.
MOST_CHARACTERS = 200_000
TEMPLATES = """
A line can stand for several prompts:

- `a {red|blue} duck` is *a red duck* and *a blue duck*.
- `{animal: cat, dog}` on a line of its own says what `{animal}` stands for elsewhere: `a {animal}` is then
  *a cat* and *a dog*.
- The same name is the same word within a line: `a {animal} on a {animal}` is *a cat on a cat*, ...
- A line that begins with `#` is a comment. Where every line is `id|prompt`, the ids are left out.
"""


@dataclass(frozen=True)
class Counted:
    """A list of prompts, sorted.

    Attributes:
        learned: prompts to learn.
        held_out: prompts that are only judged by.
        strange: prompts that the model cannot express, with the reason; they are left out.
        listed: what was read.
    """

    learned: tuple[str, ...]
    held_out: tuple[str, ...]
    strange: dict[str, str]
    listed: PromptList


def count(engine: Engine, listed: PromptList, share: float, seed: int = 0) -> Counted:
    """Sort a list: what the model cannot express is left out, and a share is held out.

    Raises:
        UserError: the share cannot be.
    """
    strange = misfits(listed.prompts) if engine.words else {}
    usable = tuple(prompt for prompt in listed.prompts if prompt not in strange)
    return Counted(*split(usable, share, seed), strange, listed)


def from_text(given: str) -> PromptList:
    """The prompts of the page's text.

    Raises:
        UserError: it is too long for the page.
    """
    if len(given) > MOST_CHARACTERS:
        raise UserError(
            f"This page takes lists of at most {MOST_CHARACTERS:,} characters, not {len(given):,}: use"
            " `python -m triplaneturbo finetune --prompts FILE`."
        )
    return read_text(given)


def from_file(path: Path, column: str | None) -> tuple[PromptList, str]:
    """The prompts of an uploaded list, and the text that the page shows of it: as it was where it is a text.

    Raises:
        UserError: it is no list, or too long for the page; of its path the sentence has the name only.
    """
    with _named(path):
        listed = read_file(path, column)
    lines = text_of(path) if path.suffix == ".txt" else "\n".join(listed.prompts)
    from_text(lines[: MOST_CHARACTERS + 1])
    return listed, lines


def of_run(state: RunState | None) -> str:
    """The text that a page begins with: the prompts of the run that there is, if they are not too many."""
    lines = "\n".join(state.order.prompts + state.order.held_out) if state is not None else ""
    return lines if len(lines) <= MOST_CHARACTERS else ""


def choices(path: Path) -> list[str]:
    """The columns of an uploaded list that can be chosen; [] where there is no choice.

    Raises:
        UserError: it is no list; of its path the sentence has the name only.
    """
    with _named(path):
        return columns(path)


def panel(counted: Counted | None, error: str = "") -> str:
    """What the page shows of a list."""
    if error:
        words = f'<p class="tt-words">{text(error)}</p>'
        return f'<div class="tt-counted" role="alert" data-state="error">{words}</div>'
    if counted is None or not any((counted.listed.prompts, counted.listed.notes, counted.listed.wrong)):
        return '<div class="tt-counted" role="status"><p class="tt-soft">No prompts yet.</p></div>'
    listed = counted.listed
    left = [
        (listed.blanks, "blank"),
        (listed.duplicates, "there twice"),
        (listed.wrong, "not text"),
        (listed.too_long, "too long"),
        (listed.comments, "commented out"),
    ]
    out = [f"{number:,} {what}" for number, what in left if number]
    lines = [
        f"<b>{how_many(len(counted.learned))} to learn</b>, {len(counted.held_out):,} held out for judging."
    ]
    if out:
        lines.append(f"Left out: {text(', '.join(out))}.")
    lines += [text(note) for note in listed.notes[:_MOST]]
    if counted.strange:
        lines.append(
            f"Left out, as this model cannot express {'it' if len(counted.strange) == 1 else 'them'}:"
        )
        lines += [
            f"“{text(prompt)}”: {text(why.rstrip('.'))}."
            for prompt, why in list(counted.strange.items())[:_MOST]
        ]
        if len(counted.strange) > _MOST:
            lines.append(f"and {len(counted.strange) - _MOST:,} more.")
    return f'<div class="tt-counted" role="status">{"".join(f"<p>{line}</p>" for line in lines)}</div>'


def usable(counted: Counted) -> Sequence[str]:
    """All prompts that are not left out."""
    return counted.learned + counted.held_out


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors tell a file's name, and not where it lies."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(shown(str(path)), shown(path.name))) from None


_MOST = 20
