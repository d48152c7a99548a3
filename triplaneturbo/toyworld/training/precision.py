"""Models on disk in another precision."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from triplaneturbo.models.adapter import read_safetensors
from triplaneturbo.utils.atomic_files import write_whole


def convert_folder(folder: Path, dtype: torch.dtype) -> None:
    """Turn all tensors in all safetensors files under a folder into `dtype`; those of whole numbers stay.

    Raises:
        UserError: a file is broken or cannot be written; those before it are converted already.
    """
    for path in folder.rglob("*.safetensors"):
        write_whole(path, save(read_tensors(path, dtype), metadata={"format": "pt"}))


def read_tensors(path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a safetensors file as `dtype`; those of whole numbers as they are."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in read_safetensors(path).items()
    }
