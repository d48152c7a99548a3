"""What would stop a command in the middle of its imports, checked before them."""

from __future__ import annotations

import os
import sys

from triplaneturbo.errors import UserError


def check_process() -> None:
    """Raise UserError if this process cannot load the model.

    Raises:
        UserError: the working folder is gone, or Python drops docstrings.
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
