"""Browser tests of the viewer queue: one file at a time, and failed downloads do not block it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.browsing import OpenPage, generate, milliseconds, pixels, shape_in, watched

# Delays each mesh download by more than the generation takes.
SLOW = """
  const late = (address) => String(address).includes("/file=") ? 5000 : 0;
  const { open, send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.open = function (...given) {
    this.late = late(given[1]);
    return open.apply(this, given);
  };
  XMLHttpRequest.prototype.send = function (...given) {
    setTimeout(() => send.apply(this, given), this.late);
  };
  const ask = window.fetch;
  window.fetch = async (...given) => {
    await new Promise((go) => setTimeout(go, late((given[0] && given[0].url) || given[0])));
    return ask(...given);
  };
  null;  // Playwright would call a function
"""


@pytest.mark.browser
def test_slow_viewer_loads_one_file_at_a_time(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(SLOW)
    empty = pixels(page)
    if not page.is_checked("#forming input"):
        page.check("#forming input")
    files: list[str] = []
    page.on("request", lambda request: ".glb" in request.url and files.append(request.url))
    for prompt in ("a red mushroom", "a blue cup"):
        generate(page, prompt)
        page.wait_for_selector(f"#facts :text('{prompt}')")
    for _ in range(int(milliseconds(60)) // 200):
        if files and "/a-blue-cup" in files[-1]:
            break
        page.wait_for_timeout(200)
    page.wait_for_function("() => !window.ttViewer.loading")
    shape = shape_in(page, empty)
    assert shape[:, 2].mean() > shape[:, 0].mean()  # the blue cup is shown
    assert len(files) == page.evaluate("window.ttViewer.shown.length") >= 2


@pytest.mark.browser
def test_lost_file_does_not_stop_the_next(browser: Any, url: str) -> None:
    with watched(browser, url, mortal=True) as open_page:  # the browser and the viewer log errors
        page = open_page()
        empty = pixels(page)
        page.uncheck("#forming input")
        page.route("**/file=**/a-red-mushroom*.glb", lambda route: route.fulfill(status=404, body=""))
        generate(page, "a red mushroom")
        page.wait_for_function("() => window.ttViewer.shown.length === 1")
        generate(page, "a blue cup")
        page.wait_for_function("() => window.ttViewer.shown.length === 2")
        shape_in(page, empty)
