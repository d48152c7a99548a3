"""The adapters that fine-tuning has made, by name: checkpoints/adapters/<name>/adapter.safetensors.

They lie elsewhere if TRIPLANETURBO_ADAPTERS names a folder, such as one that outlives a container. Imports
nothing heavy.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import DATA
from triplaneturbo.request import shown

ADAPTERS = Path(os.environ.get("TRIPLANETURBO_ADAPTERS") or DATA / "checkpoints" / "adapters")
FILE = "adapter.safetensors"
SUFFIX = ".safetensors"
OF_BASE = "base."  # how tensors of an adapter's file begin that are the base's own
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def misplaced(folder: Path = ADAPTERS) -> list[str]:
    """A sentence on each adapter in the folder that cannot be chosen for its name or its place."""
    if not folder.is_dir():
        return []
    return [sentence for path in sorted(folder.iterdir()) if (sentence := _misplaced(path))]


def _misplaced(path: Path) -> str:
    name, wanted = shown(path.name), _proper(path.name.removesuffix(SUFFIX))
    if path.is_file():
        loose = path.suffix == SUFFIX
        return f"The adapter {name} is in no folder: move it to {wanted}/{FILE}." if loose else ""
    if not path.is_dir():
        return ""
    if (path / FILE).is_file():
        proper = NAME.fullmatch(path.name)
        return "" if proper else f"The adapter {name} cannot be chosen by that name: rename it to {wanted}."
    weights = sorted(file.name for file in path.glob(f"*{SUFFIX}"))
    return f"The adapter {name} has no {FILE}: rename its {shown(weights[0])}." if weights else ""


def _proper(name: str) -> str:
    """The name that an adapter could have, for one that it cannot."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:64] or "mine"


def adapters(folder: Path = ADAPTERS) -> dict[str, Path]:
    """The adapters' files by name, in alphabetical order; `misplaced` tells of what is left out."""
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
        there = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        sentence = _misplaced(there[name]) if name in there else ""
        if sentence:
            raise UserError(sentence)
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
