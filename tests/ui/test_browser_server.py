"""Browser test of a server that dies while its page is open, and restarts at the same address."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import trimesh

from tests.helpers.browsing import (
    STEPS,
    Requests,
    Server,
    done,
    download,
    free_port,
    generate,
    keep,
    set_steps,
    watched,
)

pytestmark = pytest.mark.browser


def _made(page: Any) -> None:
    done(page)
    page.wait_for_selector("#download-usdz:not([disabled])")


def test_page_reports_a_lost_server_and_reconnects(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    server = Server("small", tmp_path, port)
    with watched(browser, server.url, mortal=True) as open_page:
        page = open_page()
        requests = Requests(page)
        page.click("#options button")
        set_steps(page, 2)
        generate(page, "a red mushroom")
        _made(page)
        set_steps(page, 50)
        page.fill("#seed input", "7")
        page.fill("#prompt textarea", "a tall green cactus")
        page.click("#generate")
        page.wait_for_selector("text=/step [0-9]+ of 50/")

        server.die()
        page.wait_for_selector("#status [data-state=lost]")
        assert page.inner_text("#status").strip() == (
            "The server does not answer. The page will reconnect and keep your prompt and settings."
        )
        assert page.locator("[data-state=running]").count() == 0
        assert page.locator("#status .tt-bar b").bounding_box()["width"] == 0
        assert page.locator("#generate").is_disabled()
        assert page.locator("#cancel").is_disabled()
        page.fill("#prompt textarea", "a tall green cactus, typed on")
        page.wait_for_timeout(3000)  # Gradio's own message would have come by now
        assert not page.locator(".toast-body").is_visible()
        assert page.locator("#status [data-state=lost]").count() == 1
        keep(page, "desk-lost")

        server = Server("small", tmp_path, port)
        try:
            page.wait_for_selector("text=Reconnected")
            page.wait_for_function(
                "document.querySelector('#prompt textarea')?.value === 'a tall green cactus, typed on'"
            )
            assert page.input_value("#seed input") == "7"
            keep(page, "desk-back")
            page.click("#options button")
            page.wait_for_function(f"document.querySelector('{STEPS}')?.value === '50'")
            set_steps(page, 2)
            page.click("#generate")
            _made(page)
            assert page.inner_text(".tt-caption") == "“a tall green cactus, typed on”"
            # After the pictures are drawn, no open request tells the page about a restart.
            page.click("#tabs [role=tab] >> text=Pictures")
            page.wait_for_selector("#pictures .thumbnail-item")
            page.click("#tabs [role=tab] >> text=History")
            page.wait_for_selector("#history .thumbnail-item")
            captions = page.locator("#history .caption-label").all_inner_texts()
            assert captions == ["a tall green cactus, typed on", "a red mushroom"]

            # The page does not notice this restart, as none of its requests is open.
            requests.end()
            server.stop()
            server = Server("small", tmp_path, port)
            page.locator("#history .thumbnail-item").first.click()
            page.wait_for_selector("text=Click the result once more")
            page.locator("#history .thumbnail-item").first.click()
            page.wait_for_selector("#past-restore:not([disabled])")
            name, glb = download(page, "#download-glb")  # made before the server died
            assert name.startswith("a-tall-green-cactus-typed-on-7-")
            assert len(trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh").faces) > 100
            generate(page, "a blue chair")
            # Not for the state "running": a polling browser misses a generation of half a second.
            page.wait_for_selector(".tt-caption >> text=“a blue chair”", state="attached")
            _made(page)

            server.die()
            page.click("#generate")  # the page notices only now
            page.wait_for_selector("#status [data-state=lost]")
        finally:
            server.die()
