"""Browser test of the page behind nginx under another host name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browsing import done, download, free_port, generate, keep, pixels, shape_in, watched
from tests.helpers.nginx import nginx


@pytest.fixture
def proxied(url: str, tmp_path: Path) -> Iterator[str]:
    """Address of an nginx with plain proxy_pass, at the root and under a path."""
    port = free_port()
    server = url.rstrip("/")
    locations = (
        f"location / {{ proxy_pass {server}; }} location /app/ {{ proxy_pass {server}/; }}"
        " location = /favicon.ico { return 204; }"  # which browsers request at the root
    )
    with nginx(tmp_path, port, locations):
        yield f"http://toys.example.com:{port}/"


@pytest.mark.browser
@pytest.mark.parametrize("prefix", ["", "app/"])
def test_page_behind_a_proxy(browser: Any, proxied: str, prefix: str) -> None:
    with watched(browser, proxied, prefix=prefix) as open_page:
        page = open_page()
        empty = pixels(page)
        generate(page, "a red mushroom")
        done(page)
        shape_in(page, empty)
        name, data = download(page, "#download-glb")
        assert name.endswith(".glb")
        assert data.startswith(b"glTF")
        page.click("[role=tab]:has-text('Advanced')")
        page.wait_for_selector("text=Training is limited to the machine on which the server runs")
        assert not page.is_visible("#training")
        keep(page, f"proxy-{prefix.strip('/') or 'top'}")
