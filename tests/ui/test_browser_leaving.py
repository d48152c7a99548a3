"""Browser tests of reloading, or leaving and returning to, the page during a generation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.browsing import OpenPage, done, generate, milliseconds, pixels, shape_in, watched


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[OpenPage]:
    """Gradio's client complains when the page is left while it listens (6.31)."""
    with watched(browser, url, mortal=True) as open_page:
        yield open_page


@pytest.mark.browser
def test_reload_after_completion_keeps_the_result(open_page: OpenPage) -> None:
    page = open_page()
    for count, prompt in enumerate(("a red mushroom", "a blue cup", "a green hat"), 1):
        generate(page, prompt)
        page.wait_for_selector("[data-state=done]")
        page.reload()
        page.wait_for_selector("#generate")
        page.click("#tabs [role=tab] >> text=History")
        page.wait_for_function(f"document.querySelectorAll('#history .thumbnail-item').length === {count}")
    page.locator("#history .thumbnail-item").first.click()
    for _ in range(int(milliseconds(60)) // 500):  # the other files are written in the background
        if page.is_enabled("#download-usdz"):
            break
        page.wait_for_timeout(500)
        page.locator("#history .thumbnail-item").last.click()
        page.locator("#history .thumbnail-item").first.click()
    assert page.is_enabled("#download-usdz")


@pytest.mark.browser
def test_back_during_generation(open_page: OpenPage) -> None:
    page = open_page()
    empty = pixels(page)
    generate(page, "a red mushroom")
    page.wait_for_selector("#status [data-state=running]")
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector("#generate:not([disabled])")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a red mushroom'")
    generate(page, "a blue cup")
    done(page)
    shape_in(page, empty)
