"""Export of a trained model for release: float16 weights, without training state.

python -m triplaneturbo.toyworld export --folder runs/small --to checkpoints/small
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.config import TOYWORLD, GeneratorConfig
from triplaneturbo.models.weights import BASE_PARTS, TEXT_PARTS
from triplaneturbo.toyworld.training.precision import convert_folder

LIMIT = 24 * 2**20  # maximum size in the repository in bytes
JUDGE = "clip"  # name of the judge's folder, which is released with the model if it exists


def export(folder: Path, target: Path) -> int:
    """Copy `folder/model` (and the judge) to `target` in float16; returns its size in bytes.

    The new model is written beside the old one and then replaces it.

    Raises:
        UserError: there is no model, it is too large, or it cannot be written.
    """
    source = folder / "model"
    if not (source / ADAPTER_NAME).is_file():
        raise UserError(f"{folder} contains no model: run `python -m triplaneturbo.toyworld train` first.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export.") as place:
            new = Path(place) / "new"
            for part in (*BASE_PARTS, *TEXT_PARTS):
                shutil.copytree(source / part, new / part)
            shutil.copy(source / ADAPTER_NAME, new / ADAPTER_NAME)
            if (folder / JUDGE).is_dir():
                shutil.copytree(folder / JUDGE, new / JUDGE)
            config = GeneratorConfig.load(source)
            replace(config, domain=TOYWORLD, untrained_seed=None).save(new)
            convert_folder(new, torch.float16)
            size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
            if size > LIMIT:
                raise UserError(
                    f"The model has {size / 2**20:.1f} MB, more than the limit of {LIMIT >> 20} MB."
                )
            if target.exists():
                target.rename(Path(place) / "old")
            new.rename(target)
    except OSError as error:
        raise UserError(
            f"Cannot write {target}: {error.strerror}; free disk space or choose another folder."
        ) from error
    return size
