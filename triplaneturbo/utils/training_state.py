"""Training state files: atomic saving, validated loading, and a check of the settings on resume."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically


class BrokenState(UserError):
    """A training state file is corrupt or incomplete."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save tensors, numbers and strings in dicts and lists, replacing the previous file atomically.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """Load a state that `save_state` wrote, on the CPU; it has a dict "settings".

    Raises:
        BrokenState: the file is corrupt.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:  # torch does not verify checksums
                raise ValueError("wrong checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not (isinstance(state, dict) and isinstance(state.get("settings"), dict)):
            raise ValueError("not a state")
    except (
        OSError, RuntimeError, EOFError, ValueError, LookupError, zipfile.BadZipFile, pickle.UnpicklingError,
    ):  # fmt: skip
        raise BrokenState(f"{path} is corrupt; delete it to restart this stage.") from None
    return state


def load_state(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Load a state that `save_state` wrote, or return None if the file does not exist.

    Args:
        path: the file.
        settings: settings of the current run, which must equal those in the state.

    Raises:
        UserError: the file is corrupt, or was saved with other settings.
    """
    if not path.exists():
        return None
    state = read_state(path)
    check_settings(path.parent, state["settings"], settings)
    return state


def check_settings(run: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError if a run was started with other settings.

    Args:
        run: folder of the run.
        then: settings of the saved run.
        now: settings of the current run.
    """
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise UserError(
            f"The run in {run} was started with {key} {then.get(key)!r}, not {now.get(key)!r}; use the same "
            "value to resume it, or choose another folder for a new run."
        )
