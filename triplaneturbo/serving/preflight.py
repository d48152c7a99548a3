"""What would stop a command in the middle of its imports, checked before them."""

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
        UserError: the working folder is gone, Python drops docstrings, or no temporary file can be made.
    """
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The working folder no longer exists or cannot be read; change to another one."
        ) from None
    if sys.flags.optimize > 1:
        raise UserError(
            "Python runs without docstrings, which transformers needs; unset PYTHONOPTIMIZE or set"
            " it to 1, and do not pass -OO."
        )
    try:
        tempfile.gettempdir()
    except OSError:
        raise UserError("No folder for temporary files is writable; set TMPDIR to one that is.") from None


def check_served_folder(folder: Path) -> None:
    """Raise UserError if files in a folder have no address that a browser can ask for.

    Raises:
        UserError: its absolute path is not text, or holds a line break or another control character.
    """
    path = os.path.realpath(folder)
    if any("\udc80" <= character <= "\udcff" for character in path):
        raise UserError(
            f"The folder {shown(path)} for results has a name that is not text in this locale; choose another"
            " --outputs, or set LC_ALL=C.UTF-8 if it is UTF-8."
        )
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise UserError(
            f"The folder {shown(path)} for results has a control character in its name, which no address can"
            " have; choose another --outputs."
        )
