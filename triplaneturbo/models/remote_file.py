"""RichDreamer's normal-depth model lies on no hub, but at an address of its authors."""

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
    """A file at an address."""

    name: str
    url: str


RICHDREAMER = RemoteFile(
    "RichDreamer's normal-depth model",
    "https://virutalbuy-public.oss-cn-hangzhou.aliyuncs.com/share/RichDreamer/nd_mv_ema.ckpt",
)


def url_file(address: RemoteFile) -> Path:
    """Where the file of an address is kept: beside the hub's."""
    return cache_folder() / "triplaneturbo" / address.url.rpartition("/")[2]


def _refuse_offline(address: RemoteFile) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{address.name} is not at {url_file(address)}, and HF_HUB_OFFLINE forbids to fetch it: unset"
            " that."
        )


def size_of_url(address: RemoteFile) -> int | None:
    """Its bytes; None where the server does not say.

    Raises:
        UserError: it cannot be reached.
    """
    _refuse_offline(address)
    try:
        request = Request(address.url, method="HEAD")
        with urlopen(request, timeout=10) as answer:
            length = answer.headers.get("Content-Length")
    except HTTPError as error:
        raise UserError(
            f"{address.name} is not at {address.url} any more (HTTP {error.code}): find it elsewhere and put"
            f" it at {url_file(address)}."
        ) from None
    except OSError:
        raise UserError(f"{address.url} cannot be reached; check the connection.") from None
    return int(length) if length else None


def fetch_url(address: RemoteFile) -> Path:
    """The file of an address on this machine, fetched with a progress bar; after a cut it is gone on with.

    Raises:
        UserError: it cannot be reached, was not sent to its end, or cannot be written.
    """
    from huggingface_hub.file_download import http_get

    file = url_file(address)
    if file.is_file():
        return file
    size = size_of_url(address)
    part = file.with_name(f"{file.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if file.is_file():  # another process was at it
                return file
            with part.open("ab") as stream:
                http_get(address.url, stream, resume_size=stream.tell(), expected_size=size)
            os.replace(part, file)
    except Exception as error:  # the transport has errors of its own kinds
        cut = UserError(f"{address.name} was not sent to its end; run the same again to go on.")
        raise cache_write_error(error, file.name) or cut from None
    return file
