"""Prompt lists of commands that evaluate."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from triplaneturbo.distill.corpora.prompt_list import read_file
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown


def read_prompt_list(file: str, column: str | None, quiet: bool) -> tuple[str, ...]:
    """Read a list of prompts, and print what was left out of its file.

    Raises:
        UserError: the file cannot be read, or it contains no prompt.
    """
    prompts = read_file(Path(os.path.expanduser(file)), column)
    if not quiet:
        for line in (f"{shown(file)}: {prompts.summary}", *prompts.notes):
            print(line, file=sys.stderr)
    if not prompts.lines:
        raise UserError(f"{shown(file)} contains no prompt; write one per line.")
    return prompts.prompts
