"""Safe loading of third-party checkpoints (`.pth`, `.pt`, `.ckpt`): weights only, no code execution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError


def read_checkpoint(path: Path, what: str, mapped: bool = False) -> Any:
    """Load a checkpoint with its tensors on the CPU.

    Args:
        path: the file.
        what: description of the expected file for error messages, for example "a released adapter".
        mapped: memory-map the file, so that tensors are read on first access.

    Raises:
        UserError: the file is missing, truncated, not a checkpoint, or contains objects other than weights.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"File not found: {path}; give the path of {what}.") from None
    except Exception as error:  # a corrupt file can raise almost any exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not a valid checkpoint, or contains more than weights ({reason[:120]}); download it"
            " again."
        ) from None
