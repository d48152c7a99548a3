"""The state of a training run on disk: written whole or not at all, and taken up again."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.files import write_whole


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts in dictionaries and lists; the last one stays until this is whole."""
    buffer = BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state that `save_state` wrote, or None where there is none yet.

    Args:
        settings: what the run is now asked to do; it has to equal the state's own "settings".

    Raises:
        UserError: the file is broken, or belongs to a run with other settings.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(state, dict) and isinstance(state.get("settings"), dict)):
            raise ValueError("not a state")
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError):
        raise UserError(f"{path} is broken: delete it to begin this stage anew.") from None
    then = state["settings"]
    changed = sorted(key for key in settings.keys() | then.keys() if settings.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"The run in {path.parent} was begun with {key} {then.get(key)!r}, not {settings.get(key)!r}: "
            f"give the same again to go on, or another folder to begin a new one."
        )
    return state
