"""Starting a run from a finished model instead of from scratch.

    python -m triplaneturbo.toyworld train --from checkpoints/small --captions mine.txt --folder runs/mine

The model's base is copied into the run, so there is no pretraining, and its adapter is trained further.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.weights import BASE_PARTS, TEXT_PARTS
from triplaneturbo.toyworld.training.precision import convert_folder, read_tensors
from triplaneturbo.toyworld.training.train import CONFIG


def copy_base(model: Path, folder: Path) -> str:
    """Copy a model's base to `folder/base` in float32 if it is missing; returns a hash of its adapter.

    Raises:
        UserError: `model` is not a complete model of the toy world, or the folder has a different base or
            cannot be written.
    """
    config = GeneratorConfig.load(model)
    ours = replace(CONFIG, domain=config.domain, variants=config.variants, steps=config.steps)
    if replace(config, untrained_seed=None) != ours:
        raise UserError(f"{model} has other sizes than the built-in model: choose another one.")
    missing = [part for part in (*BASE_PARTS, *TEXT_PARTS, ADAPTER_NAME) if not (model / part).exists()]
    if missing:
        raise UserError(f"{model} has no {missing[0]}: choose the folder of a trained model.")
    base = folder / "base"
    try:
        fingerprint = hashlib.sha256((model / ADAPTER_NAME).read_bytes()).hexdigest()[:16]
        if not base.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".base.") as place:
                new = Path(place) / "new"
                for part in (*BASE_PARTS, *TEXT_PARTS):
                    shutil.copytree(model / part, new / part)
                convert_folder(new, torch.float32)
                new.rename(base)
        elif not _same_unet(base, model):
            raise UserError(f"{folder} has another base than {model}: choose another folder.")
    except OSError as error:
        raise UserError(
            f"Cannot copy {model} to {base}: {error.strerror or error}; free disk space or choose "
            "another folder."
        ) from error
    return fingerprint


def _same_unet(base: Path, model: Path) -> bool:
    """Return whether the U-Nets of two models are equal in float16."""
    one, other = (
        {name: tensor for path in sorted((place / "unet").glob("*.safetensors"))
         for name, tensor in read_tensors(path, torch.float16).items()}
        for place in (base, model)
    )  # fmt: skip
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
