"""Adapters of the built-in model in the tests' folder of adapters."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file

from triplaneturbo.models.adapter import ADAPTER_NAME, read_safetensors
from triplaneturbo.models.adapters import ADAPTERS
from triplaneturbo.models.catalog import SMALL


@contextmanager
def installed_adapter(name: str, steps: str | None) -> Iterator[Path]:
    """Install a copy of the built-in adapter with `steps` in its metadata; yield its file."""
    path = ADAPTERS / name / ADAPTER_NAME
    path.parent.mkdir(parents=True)
    try:
        save_file(read_safetensors(SMALL / ADAPTER_NAME), path, {} if steps is None else {"steps": steps})
        yield path
    finally:
        shutil.rmtree(path.parent)
