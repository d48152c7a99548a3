"""Downloads from a plain URL, for RichDreamer's normal-depth model, which is not on the hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from triplaneturbo.errors import UserError
from triplaneturbo.models.hub import cache_folder, cache_write_error


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL.

    Attributes:
        name: display name.
        url: its URL.
    """

    name: str
    url: str


RICHDREAMER = RemoteFile(
    "RichDreamer's normal-depth model",
    "https://virutalbuy-public.oss-cn-hangzhou.aliyuncs.com/share/RichDreamer/nd_mv_ema.ckpt",
)


def url_file(remote: RemoteFile) -> Path:
    """Return the local path of a remote file, inside the hub's cache folder."""
    return cache_folder() / "triplaneturbo" / remote.url.rpartition("/")[2]


def _check_online(remote: RemoteFile) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{remote.name} was not found at {url_file(remote)}, and HF_HUB_OFFLINE prevents its download;"
            " unset that variable."
        )


def size_of_url(remote: RemoteFile) -> int | None:
    """Return the size of a remote file in bytes, or None if the server does not report it.

    Raises:
        UserError: the server is unreachable, or the file is not there.
    """
    _check_online(remote)
    try:
        request = Request(remote.url, method="HEAD")
        with urlopen(request, timeout=10) as response:
            length = response.headers.get("Content-Length")
    except HTTPError as error:
        raise UserError(
            f"{remote.name} is no longer available at {remote.url} (HTTP {error.code}); download it from"
            f" another place and save it as {url_file(remote)}."
        ) from None
    except OSError:
        raise UserError(f"{remote.url} is unreachable; check the network connection.") from None
    return int(length) if length else None


def fetch_url(remote: RemoteFile) -> Path:
    """Return the local path of a remote file, downloading it with a progress bar if it is missing.

    An interrupted download is resumed.

    Raises:
        UserError: the server is unreachable, the download is incomplete, or the cache is not writable.
    """
    from huggingface_hub.file_download import http_get

    file = url_file(remote)
    if file.is_file():
        return file
    size = size_of_url(remote)
    part = file.with_name(f"{file.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if file.is_file():  # downloaded by another process in the meantime
                return file
            with part.open("ab") as stream:
                http_get(remote.url, stream, resume_size=stream.tell(), expected_size=size)
            os.replace(part, file)
    except Exception as error:  # the HTTP client's exception types differ between versions
        incomplete = UserError(
            f"The download of {remote.name} is incomplete; run the command again to resume."
        )
        raise cache_write_error(error, file.name) or incomplete from None
    return file
