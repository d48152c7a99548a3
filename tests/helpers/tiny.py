"""A model's folder that is quick to make and to load, whatever the built-in model has become."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig


def tiny_model(folder: Path, *, world: bool) -> Path:
    """The built-in model's sizes and tokenizer in `folder`, weights drawn from a seed; returns `folder`."""
    shutil.copytree(SMALL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    replace(GeneratorConfig.load(SMALL), untrained_seed=7, world=world).save(folder)
    return folder
