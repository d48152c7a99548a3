"""Browser tests of Copy link and of the address that it copies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.browsing import OpenPage, Requests, done, generate, pixels, shape_in

pytestmark = pytest.mark.browser

READY = "#copy-link:not([disabled])"


def _open(page: Any, requests: Requests, link: str, empty: Any) -> None:
    """Open a link and see its mesh; then the address is the page's again."""
    requests.end()
    page.goto(f"{link}&__theme=light")
    page.wait_for_selector(READY)
    page.wait_for_function("document.querySelector('#facts').innerText.includes('a red mushroom')")
    shape_in(page, empty)
    assert "result=" not in page.url
    assert "__theme=light" in page.url


def test_a_copied_link_opens_the_result_once(open_page: OpenPage) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    empty, requests = pixels(page), Requests(page)
    generate(page, "a red mushroom")
    done(page)
    page.click(READY)
    page.wait_for_selector("#status >> text=copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert "/?result=" in link
    _open(page, requests, link, empty)

    # Another machine's page without https has no clipboard: the link is in a dialog.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    shown: list[str] = []
    page.once("dialog", lambda dialog: (shown.append(dialog.default_value), dialog.dismiss()))
    page.click(READY)
    assert shown == [link]
    _open(page, requests, shown[0], empty)

    requests.end()
    page.reload()
    page.wait_for_selector(".tt-status")
    requests.end()
    assert "a red mushroom" not in page.inner_text("#facts")
    assert page.locator("#copy-link").is_disabled()


def test_an_embedded_page_has_no_links(open_page: OpenPage) -> None:
    page = open_page()
    assert page.locator("#copy-link").is_visible()
    Requests(page).end()
    page.evaluate("document.body.innerHTML = `<iframe src='${location.href}'></iframe>`")
    page.frame_locator("iframe").locator(".tt-status").wait_for()
    frame = page.frames[-1]
    frame.wait_for_function("document.documentElement.classList.contains('tt-no-links')")
    assert not frame.locator("#copy-link").is_visible()
