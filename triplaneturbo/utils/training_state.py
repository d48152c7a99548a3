"""The state of a training run on disk: written whole or not at all, and taken up again."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_whole


class BrokenState(UserError):
    """A file that holds no state, or a part of one."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts in dictionaries and lists; the last one stays until this is whole.

    Raises:
        UserError: it cannot be written.
    """
    buffer = BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """The state that `save_state` wrote, on the CPU; it holds its "settings".

    Raises:
        BrokenState: the file is broken.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # torch itself compares no checksums
                raise ValueError("a wrong checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(state, dict) and isinstance(state.get("settings"), dict)):
            raise ValueError("not a state")
    except (
        OSError, RuntimeError, EOFError, ValueError, LookupError, zipfile.BadZipFile, pickle.UnpicklingError,
    ):  # fmt: skip
        raise BrokenState(f"{path} is broken: delete it to begin this stage anew.") from None
    return state


def load_state(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state that `save_state` wrote, or None where there is none yet.

    Args:
        settings: what the run is now asked to do; it has to equal the state's own "settings".

    Raises:
        UserError: the file is broken, or belongs to a run with other settings.
    """
    if not path.exists():
        return None
    state = read_state(path)
    check_settings(path.parent, state["settings"], settings)
    return state


def check_settings(run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError if the run in a folder was begun with other settings than it is now asked for."""
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"The run in {run} was begun with {key} {then.get(key)!r}, not {now.get(key)!r}: "
            f"give the same again to go on, or another folder to begin a new one."
        )
