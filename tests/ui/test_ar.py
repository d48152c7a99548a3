"""Augmented reality: links for phones, and a QR code elsewhere."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("gradio")

from tests.helpers.browsing import OpenPage
from triplaneturbo.errors import UserError
from triplaneturbo.ui.generate.ar_button import LONGEST_LINK, qr_code

STEM = "/outputs/history/live-0/a-cup"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"
ANDROID = "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/130.0 Mobile Safari/537.36"


@pytest.mark.parametrize(
    "link",
    ["http://192.168.1.7:7860/?ar=%2Fa%2Fb", "https://example.com/app/?ar=x", "https://[2001:db8::7]/"],
)
def test_code_of_a_reachable_address_is_one_inline_picture(link: str) -> None:
    segno = pytest.importorskip("segno")
    shown = qr_code(link)
    assert shown.count("<svg") == 1
    modules = segno.make(link, error="m").symbol_size(border=0)[0]
    assert f'viewBox="0 0 {modules + 8} {modules + 8}"' in shown
    assert not re.search(r"<svg[^>]*(width|height)=", shown)
    assert not re.search(r"(src|href)=", shown)
    assert ("need https" in shown) == link.startswith("http:")


REFUSED = {
    "no mesh": ("", "There is no mesh"),
    "localhost": ("http://localhost:7860/?ar=x", "Phones cannot reach localhost"),
    "loopback": ("http://127.0.0.1:7860/", "--host 0.0.0.0"),
    "loopback 6": ("http://[::1]:7860/", "Phones cannot reach ::1"),
    "file": ("file:///etc/passwd", "no address"),
    "script": ("javascript:alert(1)", "no address"),
    "markup": ("http://a.example/<svg onload=alert(1)>", "no address"),
    "broken": ("http://[::1", "no address"),
    "no host": ("http:///path", "no address"),
    "long": ("http://a.example/" + "a" * LONGEST_LINK, "no address"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_links_are_one_sentence(name: str) -> None:
    link, sentence = REFUSED[name]
    with pytest.raises(UserError, match=re.escape(sentence)):
        qr_code(link)


@pytest.mark.browser
@pytest.mark.parametrize(("agent", "kind"), [(IPHONE, "apple"), (ANDROID, "android"), (None, "desktop")])
def test_scanned_code_gives_one_link(browser: Any, url: str, agent: str | None, kind: str) -> None:
    context = browser.new_context(user_agent=agent) if agent else browser.new_context()
    page = context.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.partition("//")[2].partition("/")[0]))
    page.goto(f"{url}?ar={quote(STEM, safe='')}")
    link = page.wait_for_selector("#ar-cover a")
    href = link.get_attribute("href")
    glb = f"{url.rstrip('/')}/gradio_api/file={STEM}.glb"
    if kind == "apple":
        assert link.get_attribute("rel") == "ar"
        assert href == glb.replace(".glb", ".usdz")
        assert link.evaluate("a => a.childNodes.length === 1 && a.firstChild.tagName") == "IMG"
    elif kind == "android":
        assert href.startswith(f"intent://arvr.google.com/scene-viewer/1.0?file={quote(glb, safe='')}&")
        assert href.endswith("action=android.intent.action.VIEW;end;")
    else:
        assert href == glb
    page.click("#ar-cover button")
    assert page.query_selector("#ar-cover") is None
    assert {host for host in hosts if host and not host.startswith("127.0.0.1")} == set()
    context.close()


@pytest.mark.browser
def test_button_on_this_machine_says_that_phones_cannot_reach_it(open_page: OpenPage) -> None:
    page = open_page()
    assert page.locator("#ar").is_disabled()
    page.fill("#prompt textarea", "a cup")
    page.click("#generate")
    page.wait_for_selector("#download-usdz:not([disabled])")
    page.wait_for_selector("#ar:not([disabled])")
    page.click("#ar")
    page.wait_for_function("document.querySelector('#status').innerText.includes('Phones cannot reach')")


@pytest.mark.browser
def test_page_can_be_installed_as_an_app(url: str) -> None:
    with urllib.request.urlopen(f"{url.rstrip('/')}/manifest.json") as answer:
        manifest = json.load(answer)
    assert manifest["name"] == "triplaneturbo"
    icon = manifest["icons"][0]["src"]
    with urllib.request.urlopen(f"{url.rstrip('/')}{icon}") as answer:
        assert answer.status == 200
