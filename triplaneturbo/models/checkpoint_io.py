"""Checkpoints that others wrote (`.pth`, `.pt`, `.ckpt`): read as weights, nothing in them ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError


def read_checkpoint(path: Path, what: str, mapped: bool = False) -> Any:
    """What such a file holds, tensors on the CPU.

    Args:
        what: what the file should be, for a person.
        mapped: tensors are read from the disk when they are looked at, and not before.

    Raises:
        UserError: the file is missing, cut short, no checkpoint, or holds what only running it could make.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; give the path of {what}.") from None
    except Exception as error:  # a broken file raises whatever the bytes lead the reader to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} cannot be read as a checkpoint of weights alone ({reason[:120]}); download it again."
        ) from None
