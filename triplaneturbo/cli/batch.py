"""The lines of a batch as requests, each with the name of its files."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from triplaneturbo.distill.corpora.prompt_list import PromptList, read_batch
from triplaneturbo.errors import UserError
from triplaneturbo.request import Request, shown
from triplaneturbo.serving.output_files import OutputJob

MOST_SHOWN = 5


def read(file: str, column: str | None) -> PromptList:
    """Read a batch.

    Raises:
        UserError: it cannot be read, or has no prompt.
    """
    listed = read_batch(Path(os.path.expanduser(file)), column)
    if not listed.lines:
        left = listed.summary.partition("; ")[2]
        raise UserError(f"{shown(file)} holds no prompt{f' ({left})' if left else ''}; write one a line.")
    return listed


class Named(NamedTuple):
    """A request of a batch, and what its files are to be called ("": by the prompt)."""

    request: Request
    name: str


def requests(listed: PromptList, first: Request, count: int, file: str) -> list[Named]:
    """The requests of a batch, each once.

    Args:
        listed: the batch.
        first: what all have in common; its seed is that of lines without one.
        count: so many for each line, with seeds from the line's own one on.
        file: for errors.

    Raises:
        UserError: a request cannot be.
    """
    made: dict[Named, None] = {}
    for line in listed.lines:
        seed = first.seed if line.seed is None else line.seed
        for number in range(count):
            try:
                request = replace(first, prompt=line.prompt, seed=seed + number).checked()
            except UserError as error:
                if line.seed is None:
                    raise
                raise UserError(f"{shown(line.prompt)} in {shown(file)}: {error}") from None
            several = bool(line.name) and count > 1
            name = f"{line.name}-{number + 1:0{len(str(count))}}" if several else line.name
            made[Named(request, name)] = None
    return list(made)


def tell(file: str, listed: PromptList, wanted: list[Named], jobs: list[OutputJob]) -> None:
    """Say on standard error what was decided, what was left out, and which names were changed."""
    for line in (f"{_printable(file)}: {listed.summary}", *listed.notes, _renamed(wanted, jobs)):
        if line:
            print(line, file=sys.stderr)


def _printable(file: str) -> str:
    return file if file.isprintable() else shown(file)


def _renamed(wanted: list[Named], jobs: list[OutputJob]) -> str:
    """A sentence on files that are not called as wanted; "" if there are none."""
    stems = [next(iter(job.paths.values())).stem for job in jobs]
    changed = [
        (one.name, stem) for one, stem in zip(wanted, stems, strict=True) if one.name not in ("", stem)
    ]
    if not changed:
        return ""
    shows = "; ".join(f"{shown(name)}: {stem}" for name, stem in changed[:MOST_SHOWN])
    more = f"; and {len(changed) - MOST_SHOWN:,} more" if len(changed) > MOST_SHOWN else ""
    return f"Names changed to safe and different ones: {shows}{more}."
