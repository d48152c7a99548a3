"""Browser tests of the top-level tabs with two fonts, two display scales and five widths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.browsing import Launch, milliseconds, watched
from tests.helpers.fonts import PACKAGES, only

pytestmark = pytest.mark.browser

WIDTHS = (1440, 1920, 1024, 800, 390)
SCALES = (1.0, 1.25)
HEIGHT = 900
PANELS = {"Generate": "#prompt textarea", "Advanced": "#train-prompts textarea"}

# Boxes of the text itself: a heading's own box may be wider.
LETTERS = """(place) => {
  const range = document.createRange();
  range.selectNodeContents(place);
  return [...range.getClientRects()].filter((box) => box.width && box.height)
    .map(({ x, y, width, height }) => ({ x, y, width, height }));
}"""


@pytest.fixture(scope="module", params=list(PACKAGES))
def browser_with(request: pytest.FixtureRequest, launch: Launch, tmp_path_factory: Any) -> Iterator[Any]:
    """A browser whose only font is of one family."""
    fonts = only(request.param, tmp_path_factory.mktemp("fonts"))
    browser = launch(env={**os.environ, **fonts})
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=SCALES)
def page(request: pytest.FixtureRequest, browser_with: Any, url: str) -> Iterator[Any]:
    """The page, loaded once for all widths."""
    with watched(browser_with, url) as open_page:
        page = open_page(scale=request.param)
        page.set_default_timeout(milliseconds(3))  # the layout does not change later
        yield page


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "width"), ("y", "height"))
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_tabs_are_visible_and_open_on_click(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": HEIGHT})
    tabs = {name: page.get_by_role("tab", name=name, exact=True) for name in PANELS}
    for name in ("Advanced", "Generate"):
        tabs[name].click()
        for other, panel in PANELS.items():
            page.wait_for_selector(panel, state="visible" if other == name else "hidden")
        assert page.locator("#rooms > .tab-wrapper .overflow-menu").filter(visible=True).count() == 0
        boxes = {name: tab.bounding_box() for name, tab in tabs.items()}
        for box in boxes.values():
            assert box is not None
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width
            assert 0 <= box["y"] <= box["y"] + box["height"] <= HEIGHT
        assert not overlap(*boxes.values())
        title = page.locator(".tt-title").evaluate(LETTERS)
        assert title
        assert not [(text, box) for text in title for box in boxes.values() if overlap(text, box)]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_page_uses_its_font(page: Any, request: pytest.FixtureRequest) -> None:
    """Guard: otherwise the test above could test the same font twice."""
    family = request.node.callspec.params["browser_with"]
    session = page.context.new_cdp_session(page)
    session.send("DOM.enable")
    session.send("CSS.enable")
    root = session.send("DOM.getDocument")["root"]["nodeId"]
    heading = session.send("DOM.querySelector", {"nodeId": root, "selector": ".tt-title h1"})["nodeId"]
    fonts = session.send("CSS.getPlatformFontsForNode", {"nodeId": heading})["fonts"]
    assert [font["familyName"] for font in fonts] == [family]
