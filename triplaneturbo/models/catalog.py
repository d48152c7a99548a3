"""Which model a name means and where its files lie. Imports nothing heavy until a hub is asked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Collection
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
# Nothing that can run when loaded: no pickles.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt"]


@dataclass(frozen=True)
class ModelFiles:
    """A model's files.

    Attributes:
        name: what to call it.
        folder: the model's folder.
        base: the folder of its base, None where that is the same.
        released: a released adapter that is still to be converted into `folder`, or None.
        why: how it was come by.
        notice: what the user did not get and why, "" if nothing is to be said.
    """

    name: str
    folder: Path
    why: str
    base: Path | None = None
    released: Path | None = None
    notice: str = ""

    @property
    def small(self) -> bool:
        """Whether its U-Net is much narrower than Stable Diffusion's, whose first block has 320 channels."""
        try:
            text = ((self.base or self.folder) / "unet" / "config.json").read_text(encoding="utf-8")
            return max(json.loads(text)["block_out_channels"]) < 320
        except (OSError, ValueError, KeyError, TypeError):
            return False  # loading it will say what is wrong


@dataclass(frozen=True)
class TeacherFiles:
    """Where the full model's teachers lie: two checkpoints, and a folder with RichDreamer's text encoder.

    None: of a teacher that was not asked for.
    """

    mvdream: Path | None
    richdreamer: Path | None
    text: Path | None


def base_or_default(asked: str | None) -> str:
    """The base's folder that was asked for; None: TRIPLANETURBO_BASE's, "" if that is not set."""
    return os.environ.get("TRIPLANETURBO_BASE", "") if asked is None else asked


def find_model(name: str, on_gpu: bool, base: str = "") -> ModelFiles:
    """The model called `name`: "auto", "small", "full", a folder, or a hub id such as "someone/a-model".

    Args:
        base: a folder of Stable Diffusion 2.1-base, for a model that does not bring its own; "": the one in
            the hub's cache, fetched where it is not there yet.

    Raises:
        UserError: there is none, or its files are not on this machine and cannot be had.
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
            beside = "a released adapter beside its base"
            return _released(folder.resolve().name, adapters[0], _own_base(folder, base), beside)
        if not (folder / CONFIG_NAME).is_file():
            raise UserError(f"{shown(name)} is no model's folder: there is no {CONFIG_NAME} in it.")
        own = _own_base(folder, base)
        return ModelFiles(folder.resolve().name, folder, "asked for", base=None if own == folder else own)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and ".." not in name:
        return _from_hub(name)
    raise UserError(f"There is no model {shown(name)}; use auto, small, full, a folder or a hub id.")


def fingerprint(name: str) -> str:
    """Tells one state of a model's own files from another; for a model that is no folder yet, its name."""
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
        return _small("the full model wants a CUDA device")
    try:
        return get_full(base)
    except UserError as error:
        found = _small("the full model cannot be had")
        return replace(found, notice=f"{error} The small model is used.")


def _small(why: str) -> ModelFiles:
    if not (SMALL / CONFIG_NAME).is_file():
        raise UserError(
            f"The built-in model is missing: restore {SMALL} from the repository or install again."
        )
    return ModelFiles("small", SMALL, why)


def find_full(base: str = "") -> ModelFiles | None:
    """The full model if its files are on this machine, in `checkpoints/full` or in the hub's cache."""
    under = _given(base) or (FULL if _has_base(FULL) else cached(BASE))
    if under is None:
        return None
    if (FULL / CONFIG_NAME).is_file():
        return ModelFiles("full", FULL, "its folder is there", base=None if under == FULL else under)
    if (FULL / RELEASED).is_file():
        return _released("full", FULL / RELEASED, under, "its folder is there")
    released = cached(ADAPTER)
    if released is None:
        return None
    return _released("full", released / RELEASED, under, "in the hub's cache")


def get_full(base: str = "") -> ModelFiles:
    """The full model; what is not on this machine is fetched from the hub, with progress bars.

    Raises:
        UserError: it cannot be had.
    """
    found = find_full(base)
    if found is not None:
        return found
    try:
        if not any((FULL / name).is_file() for name in (CONFIG_NAME, RELEASED)):
            fetch(ADAPTER)
        if not (_given(base) or _has_base(FULL)):
            fetch(BASE)
    except CacheError:
        raise
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; run `python -m triplaneturbo download` where there is a network, or"
            f" put {RELEASED} and the folders of {BASE.name} into {FULL} (looked there and in"
            f" {cache_folder()})."
        ) from None
    found = find_full(base)
    assert found is not None
    return replace(found, why="fetched from the hub")


def get_teachers(names: Collection[str] = ("mvdream", "richdreamer")) -> TeacherFiles:
    """The files of the full model's teachers; what is not on this machine is fetched, with progress bars.

    Args:
        names: of the teachers that are wanted; "sd" has no files of its own.

    Raises:
        UserError: one of them cannot be had.
    """
    try:
        views = fetch(MVDREAM) / MVDREAM.files[0][0] if "mvdream" in names else None
        if "richdreamer" not in names:
            return TeacherFiles(views, None, None)
        return TeacherFiles(views, fetch_url(RICHDREAMER), fetch(TEXT_1_5))
    except CacheError:
        raise
    except UserError as error:
        raise UserError(
            f"{str(error).rstrip('.')}; run `python -m triplaneturbo download --what teachers` where there is"
            f" a network (looked in {cache_folder()} and for {url_file(RICHDREAMER)})."
        ) from None


def _given(base: str) -> Path | None:
    """The base's folder that was given, None if none was."""
    if not base:
        return None
    folder = Path(base).expanduser()
    if not (folder / "unet").is_dir():
        raise UserError(f"{shown(base)} is no base: there is no folder unet in it; see --base.")
    return folder


def _own_base(folder: Path, base: str) -> Path:
    """The base of the model in `folder`: there, where it was given, or on the hub."""
    return folder if _has_base(folder) else _given(base) or fetch(BASE)


def _has_base(folder: Path) -> bool:
    """Whether a part of a base lies in `folder`; if others are missing, loading it will say so."""
    parts = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    return any((folder / part).is_dir() for part in parts)


def _released(name: str, adapter: Path, base: Path, why: str) -> ModelFiles:
    """A released adapter with its base; converted once for each state of its file."""
    state = adapter.stat()
    mark = hashlib.sha256(f"{adapter.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
    return ModelFiles(name, _cache() / f"released-{mark[:12]}", why, base=base, released=adapter)


def _from_hub(hub_id: str) -> ModelFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_WANTED_FILES))
    except HFValidationError:
        raise UserError(f"{shown(hub_id)} cannot be a hub id; use one such as someone/a-model.") from None
    except Exception as error:  # its transport has errors of its own kinds, which differ between versions
        code = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
        if code is not None:
            raise UserError(
                f"The hub does not give {shown(hub_id)} (HTTP {code}); check the name and, for a private"
                " model, log in."
            ) from None
        raise UserError(
            f"There is no folder {shown(hub_id)}, and the hub cannot be reached to look for a model of that"
            " name; check the name and the connection."
        ) from None
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{shown(hub_id)} is no model for this program: there is no {CONFIG_NAME} in it.")
    return ModelFiles(hub_id, folder, "asked for, from the hub")


def _cache() -> Path:
    """Return the folder for converted models. UserError if the user has no home for it."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triplaneturbo"
    except RuntimeError:  # a container's user, of whom the system knows nothing
        raise UserError("There is no home folder for converted models; set XDG_CACHE_HOME to one.") from None
