"""Checks of the process and of folders before heavy imports, which would fail with obscure errors."""

from __future__ import annotations

import os
import sys
import tempfile
import unicodedata
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown


def check_process() -> None:
    """Raise UserError if this process cannot load the model.

    Raises:
        UserError: the working directory is gone, Python strips docstrings, or there is no temporary folder.
    """
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The working directory no longer exists or cannot be read; change to another one."
        ) from None
    if sys.flags.optimize > 1:
        raise UserError(
            "Python strips docstrings, which transformers needs; unset PYTHONOPTIMIZE or set it to 1, and do"
            " not pass -OO."
        )
    try:
        tempfile.gettempdir()
    except OSError:
        raise UserError("No writable folder for temporary files found; set TMPDIR to one.") from None


def check_served_folder(folder: Path) -> None:
    """Raise UserError if the files in a folder cannot be served under a URL.

    Raises:
        UserError: the absolute path is not valid text, or contains a control character such as a line break.
    """
    path = os.path.realpath(folder)
    if any("\udc80" <= character <= "\udcff" for character in path):
        raise UserError(
            f"The name of the results folder {shown(path)} is not valid text in this locale; choose another"
            " --outputs, or set LC_ALL=C.UTF-8 if it is UTF-8."
        )
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise UserError(
            f"The name of the results folder {shown(path)} contains a control character; choose another"
            " --outputs."
        )
