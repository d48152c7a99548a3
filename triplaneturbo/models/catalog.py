"""Model catalog: resolve a model name to its files. Imports no torch; huggingface_hub only on access."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.models.config import CONFIG_NAME
from triplaneturbo.models.hub import ADAPTER, BASE, MVDREAM, TEXT_1_5, CacheError, cache_folder, cached, fetch
from triplaneturbo.models.remote_file import RICHDREAMER, fetch_url, url_file
from triplaneturbo.request import shown

_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()
"""Whether the package runs from a checkout of the repository, not from an installed wheel."""
ROOT = _PACKAGE.parent if CHECKOUT else _PACKAGE
"""The folder of `checkpoints/small` and `assets`, which the wheel has inside the package (see setup.py)."""


def _user_data() -> Path:
    """Return the user's folder for data of this program; the working folder for a user without a home."""
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        parent = os.path.expanduser("~/Library/Application Support")
    else:
        parent = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(parent, "triplaneturbo") if os.path.isabs(parent) else Path.cwd()


DATA = ROOT if CHECKOUT else _user_data()
"""The folder of what users add: `checkpoints/full` and `checkpoints/adapters`."""
RUNS = (ROOT if CHECKOUT else Path()) / "outputs" / "runs"
"""The folder of fine-tuning runs; relative to the working folder where the package is installed."""
SMALL = ROOT / "checkpoints" / "small"
FULL = DATA / "checkpoints" / "full"
RELEASED = ADAPTER.files[0][0]
# No pickles: loading one can execute code.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt"]


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    Attributes:
        name: display name.
        folder: folder of the model.
        why: why this model was selected, for reports.
        base: folder of its base; None: `folder` itself.
        released: a released adapter to convert into `folder` on first use, or None.
        notice: message if the model is a fallback, otherwise "".
    """

    name: str
    folder: Path
    why: str
    base: Path | None = None
    released: Path | None = None
    notice: str = ""

    @property
    def small(self) -> bool:
        """Whether the U-Net is narrower than Stable Diffusion's, whose first block has 320 channels."""
        try:
            text = ((self.base or self.folder) / "unet" / "config.json").read_text(encoding="utf-8")
            return max(json.loads(text)["block_out_channels"]) < 320
        except (OSError, ValueError, KeyError, TypeError):
            return False  # loading the model reports the error


def base_or_default(asked: str | None) -> str:
    """Return `asked`, the requested base folder; if it is None, the value of TRIPLANETURBO_BASE or ""."""
    return os.environ.get("TRIPLANETURBO_BASE", "") if asked is None else asked


def find_model(name: str, on_gpu: bool, base: str = "") -> ModelFiles:
    """Find a model by name, downloading missing files if necessary.

    Args:
        name: "auto", "small", "full", a folder or a hub id such as "someone/a-model".
        on_gpu: whether the model will run on a CUDA device; "auto" then prefers the full model.
        base: folder of Stable Diffusion 2.1-base for a model without a base of its own; "": use the hub's
            cache, and download it if it is not cached.

    Raises:
        UserError: the name is invalid, or files are missing and cannot be downloaded.
    """
    if name == "auto":
        return _auto(on_gpu, base)
    if name == "small":
        return _small("asked for")
    if name == "full":
        return get_full(base)
    if not name.strip() or "\0" in name:
        raise UserError("The model's name is blank; use auto, small, full, a folder or a hub id.")
    folder = Path(name).expanduser()
    if os.path.isdir(folder):
        adapters = sorted(folder.glob("*.pth"))
        if not (folder / CONFIG_NAME).is_file() and len(adapters) == 1:
            why = "a released adapter with its base"
            return _released(folder.resolve().name, adapters[0], _find_base(folder, base), why)
        if not (folder / CONFIG_NAME).is_file():
            raise UserError(f"{shown(name)} is not a model folder: it has no {CONFIG_NAME}.")
        own = _find_base(folder, base)
        return ModelFiles(folder.resolve().name, folder, "asked for", base=None if own == folder else own)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and ".." not in name:
        return _from_hub(name)
    raise UserError(f"There is no model {shown(name)}; use auto, small, full, a folder or a hub id.")


def fingerprint(name: str) -> str:
    """Return a hash of a model's name and its own files; of the name alone if the files are not local."""
    folder = SMALL if name in ("auto", "small") else FULL if name == "full" else Path(name).expanduser()
    digest = hashlib.sha256(name.encode("utf-8", "replace"))
    for file in (CONFIG_NAME, "adapter.safetensors"):
        try:
            digest.update((folder / file).read_bytes())
        except (OSError, ValueError):
            continue
    return digest.hexdigest()


def _auto(on_gpu: bool, base: str) -> ModelFiles:
    if not on_gpu:
        return _small("the full model needs a CUDA device")
    try:
        return get_full(base)
    except UserError as error:
        found = _small("the full model is unavailable")
        return replace(found, notice=f"{error} The small model is used.")


def _small(why: str) -> ModelFiles:
    if not (SMALL / CONFIG_NAME).is_file():
        raise UserError(
            f"The built-in model is missing; restore {SMALL} from the repository, or reinstall the package."
        )
    return ModelFiles("small", SMALL, why)


def find_full(base: str = "") -> ModelFiles | None:
    """Return the full model if its files are local (in `checkpoints/full` or the hub's cache), else None."""
    base_folder = _explicit_base(base) or (FULL if _has_base(FULL) else cached(BASE))
    if base_folder is None:
        return None
    if (FULL / CONFIG_NAME).is_file():
        own = None if base_folder == FULL else base_folder
        return ModelFiles("full", FULL, "found in checkpoints/full", base=own)
    if (FULL / RELEASED).is_file():
        return _released("full", FULL / RELEASED, base_folder, "found in checkpoints/full")
    released = cached(ADAPTER)
    if released is None:
        return None
    return _released("full", released / RELEASED, base_folder, "found in the hub's cache")


def get_full(base: str = "") -> ModelFiles:
    """Return the full model; missing files are downloaded from the hub with progress bars.

    Raises:
        UserError: files are missing and cannot be downloaded.
    """
    found = find_full(base)
    if found is not None:
        return found
    try:
        if not any((FULL / name).is_file() for name in (CONFIG_NAME, RELEASED)):
            fetch(ADAPTER)
        if not (_explicit_base(base) or _has_base(FULL)):
            fetch(BASE)
    except CacheError:
        raise
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; run `python -m triplaneturbo download` with a network connection, or"
            f" put {RELEASED} and the folders of {BASE.name} into {FULL} (searched there and in"
            f" {cache_folder()})."
        ) from None
    found = find_full(base)
    assert found is not None
    return replace(found, why="downloaded from the hub")


def get_mvdream() -> Path:
    """Return MVDream's checkpoint, downloading it if it is missing.

    Raises:
        UserError: it cannot be downloaded.
    """
    with _explained_download():
        return fetch(MVDREAM) / MVDREAM.files[0][0]


def get_richdreamer() -> tuple[Path, Path]:
    """Return the checkpoint of RichDreamer's normal-depth model and the folder of its text encoder.

    Raises:
        UserError: they cannot be downloaded.
    """
    with _explained_download():
        return fetch_url(RICHDREAMER), fetch(TEXT_1_5)


@contextmanager
def _explained_download() -> Iterator[None]:
    try:
        yield
    except CacheError:
        raise
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; run `python -m triplaneturbo download --what teachers` with a network"
            f" connection (searched in {cache_folder()} and for {url_file(RICHDREAMER)})."
        ) from None


def _explicit_base(base: str) -> Path | None:
    """Return the base folder that the user gave, or None if `base` is empty."""
    if not base:
        return None
    folder = Path(base).expanduser()
    if not (folder / "unet").is_dir():
        raise UserError(f"{shown(base)} is not a base folder: it has no folder unet; see --base.")
    return folder


def _find_base(folder: Path, base: str) -> Path:
    """Return the base of the model in `folder`: that folder, the one that the user gave, or the hub's."""
    return folder if _has_base(folder) else _explicit_base(base) or fetch(BASE)


def _has_base(folder: Path) -> bool:
    """Return whether any part of a base is in `folder`; loading reports missing parts."""
    parts = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    return any((folder / part).is_dir() for part in parts)


def _released(name: str, adapter: Path, base: Path, why: str) -> ModelFiles:
    """Return a released adapter with its base; the conversion is cached by path, size and time of change."""
    stat = adapter.stat()
    digest = hashlib.sha256(f"{adapter.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    return ModelFiles(name, _cache() / f"released-{digest[:12]}", why, base=base, released=adapter)


def _from_hub(hub_id: str) -> ModelFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_WANTED_FILES))
    except HFValidationError:
        raise UserError(f"{shown(hub_id)} is not a valid hub id; use the form someone/a-model.") from None
    except Exception as error:  # the HTTP client's exception types differ between versions
        code = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
        if code is not None:
            raise UserError(
                f"Cannot download {shown(hub_id)} from the hub (HTTP {code}); check the name and, for a"
                " private model, log in."
            ) from None
        raise UserError(
            f"There is no folder {shown(hub_id)}, and the hub is unreachable; check the name and the network"
            " connection."
        ) from None
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{shown(hub_id)} is not a triplaneturbo model: it has no {CONFIG_NAME}.")
    return ModelFiles(hub_id, folder, "requested, from the hub")


def _cache() -> Path:
    """Return the folder for converted models.

    Raises:
        UserError: the user has no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triplaneturbo"
    except RuntimeError:  # the user has no entry in the user database, as in some containers
        raise UserError(
            "No home folder was found for converted models; set XDG_CACHE_HOME to a writable folder."
        ) from None
