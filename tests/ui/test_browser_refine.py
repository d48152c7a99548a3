"""Browser test of the Refine button with the built-in model."""

from __future__ import annotations

import io
import re

import pytest
import trimesh

from tests.helpers.browsing import OpenPage, done, download, generate, keep, milliseconds, pixels, still

pytestmark = pytest.mark.browser


def test_refine_replaces_the_shown_result_and_keeps_its_draft(open_page: OpenPage) -> None:
    page = open_page()
    assert page.is_disabled("#refine")
    assert "machinery" in page.inner_text("#refine-note")
    generate(page, "a red mushroom")
    done(page)
    page.wait_for_selector("#download-usdz:not([disabled])")
    page.wait_for_selector("#refine:not([disabled])")
    still(page)
    draft = pixels(page)
    _, draft_glb = download(page, "#download-glb")

    page.click("#refine-steps input")
    page.click("[role=option] >> text=20 steps")
    page.click("#refine")
    page.wait_for_selector("text=/Refining, step \\d+ of 20/", timeout=milliseconds(120))
    assert page.is_disabled("#refine")
    assert page.is_enabled("#cancel")
    keep(page, "desk-refining")
    page.wait_for_function(
        "document.querySelector('.tt-caption').innerText === '“a red mushroom”, refined 20 steps'",
        timeout=milliseconds(240),
    )
    page.wait_for_selector("#download-usdz:not([disabled])")
    page.wait_for_selector("#refine:not([disabled])")
    still(page)
    assert (pixels(page) != draft).any()
    _, refined_glb = download(page, "#download-glb")
    assert refined_glb != draft_glb
    assert len(trimesh.load(io.BytesIO(refined_glb), file_type="glb", force="mesh").faces) > 1000

    keep(page, "desk-refined-details")

    page.click("#tabs [role=tab] >> text=History")
    page.wait_for_selector("#history .thumbnail-item")
    captions = page.locator("#history .caption-label").all_inner_texts()
    assert captions[:2] == ["a red mushroom, refined 20 steps", "a red mushroom"]
    page.wait_for_timeout(500)  # the pictures appear
    keep(page, "desk-refined")
    page.locator("#history .thumbnail-item").nth(1).click()
    page.wait_for_function("document.querySelector('.tt-caption').innerText === '“a red mushroom”'")
    _, again = download(page, "#download-glb")
    assert again == draft_glb

    # Cancel keeps the result so far.
    page.click("#refine-steps input")
    page.click("[role=option] >> text=200 steps")
    page.click("#refine")
    page.wait_for_selector("text=/Refining, step \\d+ of 200/", timeout=milliseconds(120))
    page.click("#cancel")
    page.wait_for_selector("text=/Stopped: this is the result, refined \\d+ of 200 steps/")
    page.wait_for_selector("#refine:not([disabled])")
    captions = page.locator("#history .caption-label").all_inner_texts()
    assert re.fullmatch(r"a red mushroom, refined \d+ of 200 steps", captions[0])
    assert len(captions) == 3
