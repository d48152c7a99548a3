"""Prompt list of a fine-tuning run: training split, held-out split, and skipped prompts with reasons."""

from __future__ import annotations

from collections.abc import Iterator
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
from triplaneturbo.ui.generate.panels import text

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.training_service import RunState

# A request has at most a megabyte; longer lists need the command line.
MAX_CHARACTERS = 200_000
_MAX_LISTED = 20  # notes and unsupported prompts that are shown
TEMPLATES = """
One line can expand to several prompts:

- `a {red|blue} duck` expands to *a red duck* and *a blue duck*.
- `{animal: cat, dog}` on its own line defines `{animal}`: `a {animal}` then expands to *a cat* and *a dog*.
- A name has the same value within a line: `a {animal} on a {animal}` expands to *a cat on a cat* and
  *a dog on a dog*.
- Lines that start with `#` are comments. If every line is `id|prompt`, the ids are removed.
"""


@dataclass(frozen=True)
class PromptSplit:
    """A prompt list, split for training.

    Attributes:
        learned: training prompts.
        held_out: prompts used only for evaluation.
        unsupported: skipped prompts that the model cannot express, with the reason.
        source: the list as it was read.
    """

    learned: tuple[str, ...]
    held_out: tuple[str, ...]
    unsupported: dict[str, str]
    source: PromptList


def split_list(engine: Engine, source: PromptList, share: float, seed: int = 0) -> PromptSplit:
    """Skip the prompts that the model cannot express, and hold out a share of the others.

    Raises:
        UserError: the share is invalid.
    """
    vocabulary = engine.domain.vocabulary
    unsupported = vocabulary.misfits(source.prompts) if vocabulary is not None else {}
    usable = tuple(prompt for prompt in source.prompts if prompt not in unsupported)
    return PromptSplit(*split(usable, share, seed), unsupported, source)


def from_text(lines: str) -> PromptList:
    """Parse the text of the page's prompt field.

    Raises:
        UserError: it is too long for the page.
    """
    if len(lines) > MAX_CHARACTERS:
        raise UserError(
            f"The list has {len(lines):,} characters; this page takes at most {MAX_CHARACTERS:,}. Use"
            " `python -m triplaneturbo finetune --prompts FILE` instead."
        )
    return read_text(lines)


def from_file(path: Path, column: str | None) -> tuple[PromptList, str]:
    """Read an uploaded list.

    Returns:
        The prompts, and the lines to show in the prompt field: the text of a .txt file, or one prompt per
        line.

    Raises:
        UserError: the file is not a prompt list, or it is too long for the page. The message contains the
            file's name, but not its folder.
    """
    with _hide_folder(path):
        source = read_file(path, column)
    lines = text_of(path) if path.suffix == ".txt" else "\n".join(source.prompts)
    from_text(lines[: MAX_CHARACTERS + 1])
    return source, lines


def of_run(state: RunState | None) -> str:
    """Return the initial text of the prompt field: the current run's prompts, unless they are too many."""
    lines = "\n".join(state.config.prompts + state.config.held_out) if state is not None else ""
    return lines if len(lines) <= MAX_CHARACTERS else ""


def column_choices(path: Path) -> list[str]:
    """Return the text columns of an uploaded table; [] if there is only one or the file is not a table.

    Raises:
        UserError: the file is not a prompt list. The message contains the file's name, but not its folder.
    """
    with _hide_folder(path):
        return columns(path)


def panel(prompts: PromptSplit | None, error: str = "") -> str:
    """Return the summary of a list, or an error, as HTML."""
    if error:
        words = f'<p class="tt-words">{text(error)}</p>'
        return f'<div class="tt-counted" role="alert" data-state="error">{words}</div>'
    if prompts is None or not any((prompts.source.prompts, prompts.source.notes, prompts.source.wrong)):
        return '<div class="tt-counted" role="status"><p class="tt-soft">No prompts yet.</p></div>'
    source = prompts.source
    skipped = [
        (source.blanks, "blank"),
        (source.duplicates, "duplicated"),
        (source.wrong, "not text"),
        (source.too_long, "too long"),
        (source.comments, "commented out"),
    ]
    counts = [f"{number:,} {what}" for number, what in skipped if number]
    training, held_out = how_many(len(prompts.learned)), f"{len(prompts.held_out):,} held out for evaluation"
    lines = [f"<b>{training} for training</b>, {held_out}."]
    if counts:
        lines.append(f"Skipped: {text(', '.join(counts))}.")
    lines += [text(note) for note in source.notes[:_MAX_LISTED]]
    if prompts.unsupported:
        lines.append(
            f"Skipped, because this model cannot express {'it' if len(prompts.unsupported) == 1 else 'them'}:"
        )
        lines += [
            f"“{text(prompt)}”: {text(why.rstrip('.'))}."
            for prompt, why in list(prompts.unsupported.items())[:_MAX_LISTED]
        ]
        if len(prompts.unsupported) > _MAX_LISTED:
            lines.append(f"And {len(prompts.unsupported) - _MAX_LISTED:,} more.")
    return f'<div class="tt-counted" role="status">{"".join(f"<p>{line}</p>" for line in lines)}</div>'


@contextmanager
def _hide_folder(path: Path) -> Iterator[None]:
    """Remove the folder of a file from error messages."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(shown(str(path)), shown(path.name))) from None
