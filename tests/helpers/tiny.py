"""A tiny model with random weights that is fast to create and load."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import TOYWORLD, GeneratorConfig


def tiny_model(folder: Path, domain: str = TOYWORLD) -> Path:
    """Write a model of a domain with the built-in sizes and random weights to `folder`; return `folder`."""
    shutil.copytree(SMALL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    replace(GeneratorConfig.load(SMALL), untrained_seed=7, domain=domain).save(folder)
    return folder
