"""Fine-tuned adapters by name: checkpoints/adapters/<name>/adapter.safetensors.

TRIPLANETURBO_ADAPTERS sets another folder, for example one outside a container. This module imports neither
torch nor diffusers.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import DATA
from triplaneturbo.request import STEP_LIMIT, shown

ADAPTERS = Path(os.environ.get("TRIPLANETURBO_ADAPTERS") or DATA / "checkpoints" / "adapters")
FILE = "adapter.safetensors"
SUFFIX = ".safetensors"
STEPS = "steps"  # metadata of an adapter file: the number of denoising steps that it was trained with
BASE_PREFIX = "base."  # prefix of base weights in an adapter file
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def misplaced_adapters(folder: Path = ADAPTERS) -> list[str]:
    """Return one message for each adapter in the folder that is unusable because of its name or location."""
    if not folder.is_dir():
        return []
    return [message for path in sorted(folder.iterdir()) if (message := _misplaced(path))]


def _misplaced(path: Path) -> str:
    """Return what is wrong with the name or location of an adapter; "" if it is valid or no adapter."""
    name, suggestion = shown(path.name), _valid_name(path.name.removesuffix(SUFFIX))
    if path.is_file():
        loose = path.suffix == SUFFIX
        return f"The adapter {name} is not in a folder: move it to {suggestion}/{FILE}." if loose else ""
    if not path.is_dir():
        return ""
    if (path / FILE).is_file():
        valid = NAME.fullmatch(path.name)
        return "" if valid else f"The adapter name {name} is invalid: rename it to {suggestion}."
    weights = sorted(file.name for file in path.glob(f"*{SUFFIX}"))
    return f"The adapter {name} has no {FILE}: rename its {shown(weights[0])}." if weights else ""


def _valid_name(name: str) -> str:
    """Return a valid adapter name that is close to an invalid one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:64] or "mine"


def adapters(folder: Path = ADAPTERS) -> dict[str, Path]:
    """Return the adapter files by name, in alphabetical order; `misplaced_adapters` lists skipped ones."""
    if not folder.is_dir():
        return {}
    found = {path.name: path / FILE for path in sorted(folder.iterdir()) if NAME.fullmatch(path.name)}
    return {name: path for name, path in found.items() if path.is_file()}


def adapter(name: str, folder: Path = ADAPTERS) -> Path:
    """Return the file of the adapter `name`.

    Raises:
        UserError: no adapter has this name.
    """
    known = adapters(folder)
    if name not in known:
        entries = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
        message = _misplaced(entries[name]) if name in entries else ""
        if message:
            raise UserError(message)
        available = f"available: {', '.join(known)}" if known else "there are none yet"
        raise UserError(f"There is no adapter {shown(name)}; {available}.")
    return known[name]


def adapter_digest(name: str, folder: Path = ADAPTERS) -> str:
    """Return the SHA-256 of the adapter `name` in a folder of adapters.

    Raises:
        UserError: no adapter has this name.
    """
    return hashlib.sha256(adapter(name, folder).read_bytes()).hexdigest()


def adapter_steps(path: Path) -> int | None:
    """Return the number of denoising steps that an adapter was trained with; None if its file has none.

    Only the header of the file is read. Released checkpoints (any suffix but `.safetensors`) have no number,
    nor have corrupt or missing files, which fail when they are loaded.

    Raises:
        UserError: the number is not an integer from 1 to 50.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != SUFFIX:
        return None
    try:
        with safe_open(path, "np") as file:
            value = (file.metadata() or {}).get(STEPS)
    except (SafetensorError, OSError):
        return None
    if value is None:
        return None
    if re.fullmatch("[0-9]{1,3}", value) and 1 <= int(value) <= STEP_LIMIT:
        return int(value)
    raise UserError(
        f"Invalid number of denoising steps {shown(value)} in the metadata of {path.parent.name}/{path.name};"
        f" it should be 1 to {STEP_LIMIT}: give the number of steps, or replace the file."
    )


def has_base_weights(adapter: Path) -> bool:
    """Return whether an adapter file includes base weights (full fine-tuning); False if it is corrupt.

    Only the header of the file is read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter, "np") as file:
            return any(name.startswith(BASE_PREFIX) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
