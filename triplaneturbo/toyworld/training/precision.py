"""Conversion of safetensors files to another dtype."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from triplaneturbo.models.adapter import read_safetensors
from triplaneturbo.utils.atomic_files import write_atomically


def convert_folder(folder: Path, dtype: torch.dtype) -> None:
    """Convert the floating-point tensors of all safetensors files below a folder to `dtype`, in place.

    Raises:
        UserError: a file is broken or cannot be written; earlier files are already converted.
    """
    for path in folder.rglob("*.safetensors"):
        write_atomically(path, save(read_tensors(path, dtype), metadata={"format": "pt"}))


def read_tensors(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, the floating-point ones as `dtype`."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in read_safetensors(path).items()
    }
