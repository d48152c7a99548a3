"""The finished model as it is shipped: float16, nothing that only training needs.

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
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.weights import BASE_PARTS, TEXT_PARTS
from triplaneturbo.toyworld.training.precision import convert_folder

LIMIT = 24 * 2**20  # bytes that the repository has for it
JUDGE = "clip"  # of the folder with the score's judge, which is shipped beside the model where there is one


def export(folder: Path, target: Path) -> int:
    """Copy `folder/model` (and the judge) to `target` in float16; returns its size in bytes.

    The new model is made whole beside the old one, which is exchanged in the end.

    Raises:
        UserError: there is no model yet, it is too large, or nothing can be written.
    """
    source = folder / "model"
    if not (source / ADAPTER_NAME).is_file():
        raise UserError(f"There is no model in {folder}: run python -m triplaneturbo.toyworld train first.")
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
            replace(config, world=True, untrained_seed=None).save(new)
            convert_folder(new, torch.float16)
            size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
            if size > LIMIT:
                raise UserError(
                    f"The model takes {size / 2**20:.1f} MB, more than the {LIMIT >> 20} it may have."
                )
            if target.exists():
                target.rename(Path(place) / "old")
            new.rename(target)
    except OSError as error:
        raise UserError(f"Cannot write {target}: {error.strerror}; free space or go elsewhere.") from error
    return size
