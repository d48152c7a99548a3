"""Batches: expand the lines of a prompt file into requests with file names."""

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


def read_prompts(file: str, column: str | None) -> PromptList:
    """Read a file of prompts.

    Raises:
        UserError: the file cannot be read, or contains no prompt.
    """
    prompts = read_batch(Path(os.path.expanduser(file)), column)
    if not prompts.lines:
        skipped = prompts.summary.partition("; ")[2]
        raise UserError(
            f"{shown(file)} contains no prompt{f' ({skipped})' if skipped else ''}; write one per line."
        )
    return prompts


class NamedRequest(NamedTuple):
    """A request of a batch and the name of its files ("": named after the prompt)."""

    request: Request
    name: str


def expand_requests(prompts: PromptList, template: Request, count: int, file: str) -> list[NamedRequest]:
    """Return the requests of a batch, without duplicates.

    Args:
        prompts: the lines of the batch.
        template: settings of all requests; its seed applies to lines without one.
        count: number of requests per line, with consecutive seeds.
        file: the file's name, for error messages.

    Raises:
        UserError: a request is invalid.
    """
    requests: dict[NamedRequest, None] = {}
    for line in prompts.lines:
        seed = template.seed if line.seed is None else line.seed
        for number in range(count):
            try:
                request = replace(template, prompt=line.prompt, seed=seed + number).checked()
            except UserError as error:
                if line.seed is None:
                    raise
                raise UserError(f"{shown(line.prompt)} in {shown(file)}: {error}") from None
            numbered = bool(line.name) and count > 1
            name = f"{line.name}-{number + 1:0{len(str(count))}}" if numbered else line.name
            requests[NamedRequest(request, name)] = None
    return list(requests)


def print_summary(
    file: str, prompts: PromptList, requests: list[NamedRequest], jobs: list[OutputJob]
) -> None:
    """Print on standard error how the file was read, what was skipped and which names were changed."""
    for line in (f"{_printable(file)}: {prompts.summary}", *prompts.notes, _renamed(requests, jobs)):
        if line:
            print(line, file=sys.stderr)


def _printable(file: str) -> str:
    return file if file.isprintable() else shown(file)


def _renamed(requests: list[NamedRequest], jobs: list[OutputJob]) -> str:
    """A sentence on names that were changed; "" if there are none."""
    stems = [next(iter(job.paths.values())).stem for job in jobs]
    changed = [
        (named.name, stem)
        for named, stem in zip(requests, stems, strict=True)
        if named.name not in ("", stem)
    ]
    if not changed:
        return ""
    examples = "; ".join(f"{shown(name)}: {stem}" for name, stem in changed[:MOST_SHOWN])
    more = f"; and {len(changed) - MOST_SHOWN:,} more" if len(changed) > MOST_SHOWN else ""
    return f"Names changed to safe, unique ones: {examples}{more}."
