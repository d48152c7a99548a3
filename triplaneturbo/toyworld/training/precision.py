"""Conversion of safetensors files to another dtype."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from triplaneturbo.models.adapter import encode_safetensors, read_safetensors
from triplaneturbo.models.adapters import adapter_steps
from triplaneturbo.utils.atomic_files import write_atomically


def convert_folder(folder: Path, dtype: torch.dtype) -> None:
    """Convert the floating-point tensors of all safetensors files below a folder to `dtype`, in place.

    The number of denoising steps in an adapter's metadata is kept.

    Raises:
        UserError: a file is broken or cannot be written; earlier files are already converted.
    """
    for path in folder.rglob("*.safetensors"):
        write_atomically(path, encode_safetensors(read_tensors(path, dtype), adapter_steps(path)))


def read_tensors(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, the floating-point ones as `dtype`."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in read_safetensors(path).items()
    }
