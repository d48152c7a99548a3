"""The adapters that fine-tuning has made, by name: checkpoints/adapters/<name>/adapter.safetensors.

They lie elsewhere if TRIPLANETURBO_ADAPTERS names a folder, such as one that outlives a container. Imports
nothing heavy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.models import ROOT
from triplaneturbo.request import shown

ADAPTERS = Path(os.environ.get("TRIPLANETURBO_ADAPTERS") or ROOT / "checkpoints" / "adapters")
FILE = "adapter.safetensors"
OF_BASE = "base."  # how tensors of an adapter's file begin that are the base's own
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def adapters(folder: Path = ADAPTERS) -> dict[str, Path]:
    """The adapters' files by name, in alphabetical order; what has no proper name is left out."""
    if not folder.is_dir():
        return {}
    found = {path.name: path / FILE for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name)}
    return {name: path for name, path in found.items() if path.is_file()}


def adapter(name: str, folder: Path = ADAPTERS) -> Path:
    """The file of the adapter called `name`.

    Raises:
        UserError: there is none.
    """
    known = adapters(folder)
    if name not in known:
        has = f"there are {', '.join(known)}" if known else "there are none yet"
        raise UserError(f"There is no adapter {shown(name)}; {has}.")
    return known[name]


def brings_base(adapter: Path) -> bool:
    """Whether an adapter comes of full tuning, by its file's head alone; False where that is broken."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter, "np") as file:
            return any(name.startswith(OF_BASE) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
