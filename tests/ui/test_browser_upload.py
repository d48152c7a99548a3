"""Browser test of uploads to refine: a mesh becomes a result, hostile files are one sentence."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh

from tests.helpers.browsing import (
    OpenPage,
    download,
    keep,
    milliseconds,
    pixels,
    served,
    shape_in,
    still,
    watched,
)

pytestmark = pytest.mark.browser


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[OpenPage]:
    folder = tmp_path / "server"
    folder.mkdir()
    with served("small", folder, "--refine", "--uploads") as url, watched(browser, url) as open_page:
        yield open_page


def upload(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#refine-upload")
    chooser.value.set_files(path)


def test_an_uploaded_mesh_is_refined_and_hostile_files_are_not(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.wait_for_selector("#refine-upload")
    page.fill("#prompt textarea", "a red mushroom")
    page.click("#refine-steps input")
    page.click("[role=option] >> text=20 steps")

    large = tmp_path / "large.glb"
    with large.open("wb") as file:
        file.truncate((32 << 20) + 1)
    upload(page, large)
    page.wait_for_selector("#status >> text=The file is too large: it may have at most 32 MB.")
    ball = trimesh.creation.icosphere(subdivisions=3).export(file_type="glb")
    hostile = {
        "page.glb": b"<html></html>",
        "claims.glb": ball[:12] + struct.pack("<I", 1 << 30) + ball[16:],  # a chunk of 1 GB
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
        upload(page, tmp_path / name)
        page.wait_for_selector(f"#status >> text={name} is not a valid GLB file; export the mesh again.")
        assert page.is_enabled("#refine-upload")
        assert page.locator("#viewer canvas").count() == 0

    empty = pixels(page)
    (tmp_path / "ball.glb").write_bytes(ball)
    upload(page, tmp_path / "ball.glb")
    page.wait_for_selector("text=/Refining, step \\d+ of 20/", timeout=milliseconds(180))
    page.wait_for_function(
        "document.querySelector('.tt-caption').innerText === '“a red mushroom”, refined 20 steps'",
        timeout=milliseconds(240),
    )
    page.wait_for_selector("#download-usdz:not([disabled])")
    still(page)
    assert len(shape_in(page, empty)) > 0
    keep(page, "desk-uploaded")
    _, refined = download(page, "#download-glb")
    mesh = trimesh.load(io.BytesIO(refined), file_type="glb", force="mesh")
    assert len(mesh.faces) > 1000

    page.click("#tabs [role=tab] >> text=History")
    page.wait_for_selector("#history .thumbnail-item")
    assert page.locator("#history .caption-label").all_inner_texts() == ["a red mushroom, refined 20 steps"]
    uploaded = {large.name, *hostile, "ball.glb"}
    assert not [path for path in (tmp_path / "server").rglob("*") if path.name in uploaded]
