"""Text with one prompt per line: comments and optional ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from triplaneturbo.distill.corpora.tables import KNOWN

_ROW = re.compile(r"\s*([\w.-]{1,64})\s*\|\s*(\S.*)")


class Line(NamedTuple):
    """A line of text and its id ("" if it has none)."""

    text: str
    id: str = ""


def without_comments(lines: Sequence[str]) -> list[str]:
    """Return the lines that are not comments (starting with "#")."""
    return [line for line in lines if not line.lstrip().startswith("#")]


def with_ids(lines: Sequence[str]) -> tuple[list[Line], list[str]]:
    """Split lines of the form id|prompt; also return notes on how the text was interpreted.

    The id is one word. Lines are split only if all non-blank lines have this form; otherwise a "|" is part of
    the prompt.
    """
    found = [_ROW.fullmatch(line) for line in lines]
    rows = sum(match is not None for match in found)
    if rows == 0:
        return [Line(line) for line in lines], []
    if rows < sum(bool(line.strip()) for line in lines):
        note = (
            f'{rows} line{"s have" if rows > 1 else " has"} a "|" and others do not: it is treated as text.'
        )
        return [Line(line) for line in lines], [note]
    split = [
        Line(line) if match is None else Line(match[2], match[1])
        for line, match in zip(lines, found, strict=True)
    ]
    notes = ["The lines have the form id|prompt."]
    first = next(i for i, match in enumerate(found) if match is not None)
    if split[first].text.strip().casefold() in KNOWN:
        del split[first]
        notes.append("The first line is a header.")
    return split, notes
