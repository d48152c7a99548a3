"""Uploads of pages: keys, the number and age of files, and the rate at which they are received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("gradio")

from triplaneturbo.errors import UserError
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.refine_request import RefineUploads
from triplaneturbo.serving.route_filter import API, REFINE_UPLOAD, RouteFilter
from triplaneturbo.serving.served_files import ServedFiles
from triplaneturbo.serving.uploads import LIFETIME, MOST_FILES, Uploads
from triplaneturbo.serving.user_history import History


def stored(uploads: Uploads) -> str:
    """Store a file of a new page; return its key."""
    key = uploads.issue()
    uploads.receive(key, "a.glb").write_bytes(b"x")
    return key


def test_many_keys_evict_no_file(tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    key = stored(uploads)
    assert len({uploads.issue() for _ in range(2000)}) == 2000
    assert uploads.uploaded(uploads.check(key)).read_bytes() == b"x"
    assert not RefineUploads(tmp_path, pictures=True).knows(key)  # of another server
    assert not any(uploads.knows(wrong) for wrong in ("", key[:-1], key[:32], key[:-1] + "é", None))


def test_the_oldest_of_too_many_files_are_deleted(tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    first, second, *_ = [stored(uploads) for _ in range(MOST_FILES + 1)]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == MOST_FILES
    with pytest.raises(UserError, match="no longer exists; upload it again"):
        uploads.uploaded(first)
    uploads.uploaded(second)


def test_files_that_nobody_reads_are_deleted(tmp_path: Path) -> None:
    now = 0.0
    uploads = Uploads(tmp_path, clock=lambda: now)
    uploads.suffixes = (".glb", ".obj")
    stored(uploads)
    now = LIFETIME / 2
    kept = stored(uploads)
    now = LIFETIME
    stored(uploads)
    assert len(list(tmp_path.iterdir())) == 2
    uploads.uploaded(kept)


def test_new_pages_delete_expired_files(tmp_path: Path) -> None:
    now = 0.0
    uploads = Uploads(tmp_path, clock=lambda: now)
    uploads.suffixes = (".glb", ".obj")
    stored(uploads)
    now = LIFETIME - 1
    uploads.issue()
    assert len(list(tmp_path.iterdir())) == 1
    now = LIFETIME
    uploads.issue()
    assert not list(tmp_path.iterdir())


def test_pictures_are_refused_if_the_model_takes_none(tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=False)
    with pytest.raises(UserError, match=r"use \.glb, \.obj, \.ply or \.stl\."):
        uploads.receive(uploads.issue(), "a.png")
    uploads.receive(uploads.issue(), "a.glb")


def post(filter_: RouteFilter, key: str, parts: list[Any], address: str = "203.0.113.7") -> int:
    """Post the parts of a file, each bytes or a function that is called in between; return the status."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        if callable(part):
            part()
            part = b"-"
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"host", b"example.com"), (b"x-key", key.encode()), (b"x-name", b"a.glb")]
    scope = {
        "type": "http", "method": "POST", "path": f"{API}{REFINE_UPLOAD}", "root_path": "",
        "query_string": b"", "headers": headers, "client": (address, 4000), "server": ("example.com", 80),
        "scheme": "http",
    }  # fmt: skip
    anyio.run(filter_, scope, receive, send)
    return statuses[0]


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return RefineUploads(tmp_path / "uploads", pictures=True)


@pytest.fixture
def route_filter(tmp_path: Path, uploads: Uploads) -> RouteFilter:
    async def nothing(*_: Any) -> None:
        raise AssertionError("forwarded")

    guard = RequestLimiter(Limits(per_minute=2))
    served = ServedFiles(History(tmp_path / "history"))
    return RouteFilter(nothing, served, 1000, {REFINE_UPLOAD: uploads}, guard)


def test_the_uploads_of_an_address_are_counted(route_filter: RouteFilter, uploads: Uploads) -> None:
    assert [post(route_filter, uploads.issue(), [b"x"]) for _ in range(3)] == [200, 200, 429]
    assert post(route_filter, uploads.issue(), [b"x"], "203.0.113.8") == 200


def test_an_upload_that_is_replaced_takes_no_more_space(route_filter: RouteFilter, uploads: Uploads) -> None:
    key = uploads.issue()
    assert post(route_filter, key, [b"x", lambda: stored_again(uploads, key), b"x"]) == 409
    assert uploads.uploaded(key).read_bytes() == b"newer"


def stored_again(uploads: Uploads, key: str) -> None:
    uploads.receive(key, "a.glb").write_bytes(b"newer")
