"""The page in headless Chromium, served by app.py itself with the built-in model.

Screenshots go to the folder named by TRIPLANETURBO_SCREENSHOTS, if any.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from tests.tiny import tiny_model
from triplaneturbo.models import ROOT

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium"),
]
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESK, TABLET, PHONE = (1440, 900), (1024, 768), (390, 844)
PLACES = ("#prompt", "#generate", "#status", "#viewer", "#facts", "#downloads")
WAIT = 60_000  # milliseconds

OpenPage = Callable[..., Any]


@contextmanager
def _served(model: str, folder: Path) -> Iterator[str]:
    """The address of app.py behind a proxy that leads nowhere, as in many an office."""
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--model", model, "--device", "cpu", "--port", str(port)]
    command += ["--outputs", str(folder / "history")]
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **nowhere, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    said: list[str] = []
    assert server.stdout is not None
    try:
        for line in server.stdout:
            said.append(line)
            if line.startswith("Open "):
                break
        else:
            pytest.fail("app.py ended: " + "".join(said))
        # What it says later is read on, so that it never waits for a reader.
        threading.Thread(target=lambda: said.extend(server.stdout or ()), daemon=True).start()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()  # as Docker stops it
        server.wait(20)
    assert "Traceback" not in "".join(said)
    assert server.returncode == 0
    assert not list(folder.glob("history/live-*"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with _served("small", tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def world_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Served with a model that knows the words of the world only."""
    folder = tmp_path_factory.mktemp("world")
    with _served(str(tiny_model(folder / "model", world=True)), folder) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[OpenPage]:
    with _watched(browser, url) as open_page:
        yield open_page


@pytest.fixture
def open_world(browser: Any, world_url: str) -> Iterator[OpenPage]:
    with _watched(browser, world_url) as open_page:
        yield open_page


@contextmanager
def _watched(browser: Any, url: str) -> Iterator[OpenPage]:
    """Opens the page at a size and in a theme; at the end nothing may have gone wrong or elsewhere."""
    contexts, wrong, hosts = [], [], set()

    def note(message: Any) -> None:
        if message.type == "error" and "WebGPU" not in message.text:  # there is none here: WebGL it is
            wrong.append(f"{message.text} {message.location}")

    def open_page(size: tuple[int, int] = DESK, theme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request",
            lambda request: hosts.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", request.url, flags=re.S)),
        )
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{url}?__theme={theme}")
        page.wait_for_selector("#generate")
        page.wait_for_selector(".tt-status")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
    assert url.rstrip("/") in hosts
    assert hosts <= {url.rstrip("/"), "data:", "blob:" + url.rstrip("/"), "blob:"}


def _keep(page: Any, name: str) -> None:
    folder = os.environ.get("TRIPLANETURBO_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=page.viewport_size["width"] < 500)


def _generate(page: Any, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#generate")


def _done(page: Any) -> None:
    page.wait_for_selector("[data-state=done]", timeout=WAIT)
    page.wait_for_selector("#viewer canvas", timeout=WAIT)


def _places(page: Any) -> list[tuple[str, dict[str, float]]]:
    return [(place, page.locator(place).bounding_box()) for place in PLACES]


def _pixels(page: Any) -> np.ndarray:
    """The viewer as it looks [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB"), np.int16)


def _shape_in(page: Any, empty: np.ndarray) -> np.ndarray:
    """The colours [N, 3] of the viewer's pixels that are not background, once there are many."""
    for _ in range(60):
        pixels = _pixels(page)
        shape = pixels[np.abs(pixels - empty).max(2) > 24]
        if len(shape) > 0.05 * pixels.shape[0] * pixels.shape[1]:
            return shape
        time.sleep(0.25)
    pytest.fail(f"only {len(shape)} pixels of the viewer are not background")


def _download(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_a_prompt_becomes_a_mesh_in_the_viewer(open_page: OpenPage) -> None:
    page = open_page()
    assert "untrained" not in page.content()
    assert page.locator("#download-glb").is_disabled()
    assert page.locator("#download-obj").is_disabled()
    before, empty = _places(page), _pixels(page)
    _keep(page, "desk-before")
    _generate(page, "a red mushroom")
    page.wait_for_selector("[data-state=running]", timeout=WAIT)
    assert page.locator("#generate").is_disabled()
    assert page.locator("#cancel").is_enabled()
    _keep(page, "desk-during")
    during = _places(page)
    _done(page)
    shape = _shape_in(page, empty)
    assert len(np.unique(shape // 32, axis=0)) > 8  # shades, not one flat colour
    assert shape.mean() > 60  # well lit
    _keep(page, "desk-after")
    assert before == during == _places(page)  # nothing has jumped
    assert page.locator("#generate").is_enabled()
    assert page.locator("#cancel").is_disabled()

    name, glb = _download(page, "#download-glb")
    assert re.fullmatch(r"a-red-mushroom-0-[0-9a-f]{8}\.glb", name)
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert f"{len(mesh.faces):,}" in page.inner_text("#facts")
    assert mesh.visual.material.baseColorTexture.size == (1024, 1024)
    name, archive = _download(page, "#download-obj")
    assert re.fullmatch(r"a-red-mushroom-0-[0-9a-f]{8}\.zip", name)
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        (obj,) = [name for name in files.namelist() if name.endswith(".obj")]
        loaded = trimesh.load(
            io.BytesIO(files.read(obj)), file_type="obj", force="mesh", process=False, skip_materials=True
        )
    assert len(loaded.faces) == len(mesh.faces)

    page.fill("#prompt textarea", "   ")
    page.click("#generate")
    page.wait_for_selector("[data-state=error]")
    assert page.inner_text(".tt-words").startswith("The prompt is blank")
    assert "Traceback" not in page.content()
    assert page.locator("#viewer canvas").is_visible()  # the last result stays
    assert "a red mushroom" in page.inner_text("#facts")
    assert page.locator("#download-glb").is_enabled()
    assert before == _places(page)
    _keep(page, "desk-error")


def test_keyboard_dark_and_a_prompt_that_is_no_html(open_page: OpenPage) -> None:
    page = open_page(TABLET, "dark")
    empty = _pixels(page)
    prompt = "<img src=x onerror=window.hit=1> ${7*7} {{value}} </p>"
    page.fill("#prompt textarea", prompt)
    page.press("#prompt textarea", "Enter")
    _done(page)
    assert page.inner_text(".tt-caption") == f"“{prompt}”"
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.body.classList.contains('dark')")
    assert page.locator("#facts img").count() == 0
    assert _shape_in(page, empty).mean() > 60
    _keep(page, "tablet-dark")


def test_cancel(open_page: OpenPage) -> None:
    page = open_page()
    page.click("#options button")
    steps = page.locator("#options input[type=number]").first
    steps.wait_for()
    page.wait_for_timeout(
        500
    )  # what was folded away is made when it is opened, and gets its value a bit later
    steps.fill("50")
    steps.press("Tab")
    page.wait_for_function("document.querySelector('#options input[type=range]').value === '50'")
    _generate(page, "a tower of fifty steps")
    page.wait_for_selector("text=/step [0-9]+ of 50/", timeout=WAIT)
    _keep(page, "desk-options")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.", timeout=WAIT)
    assert page.locator("#viewer canvas").count() == 0
    assert page.locator("#generate").is_enabled()


def test_examples_dice_and_a_seed_that_cannot_be_on_a_phone(open_page: OpenPage) -> None:
    page = open_page(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    page.click("#examples button >> text=a red mushroom")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a red mushroom'")
    page.click("#dice")
    page.wait_for_function("+document.querySelector('#seed input').value > 0")
    page.fill("#seed input", "1.5")
    page.click("#generate")
    page.wait_for_selector("[data-state=error]")
    assert "whole number" in page.inner_text(".tt-words")
    tops = [
        page.locator(place).bounding_box()["y"] for place in ("#generate", "#viewer", "#facts", "#options")
    ]
    assert tops == sorted(tops)
    _keep(page, "phone-error")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_what_the_model_does_not_know_stands_below_the_prompt(
    open_world: OpenPage, size: tuple[int, int]
) -> None:
    page = open_world(size)
    name = f"world-{'phone' if size == PHONE else 'desk'}"

    def places() -> list[float]:
        """Where things stand on the page, wherever it is scrolled to."""
        scrolled = page.evaluate("scrollY")
        return [page.locator(place).bounding_box()["y"] + scrolled for place in ("#reading", *PLACES)]

    said = page.locator("#reading p")
    assert "It knows " in said.inner_text()
    before = places()
    _keep(page, f"{name}-before")
    page.fill("#prompt textarea", "a red dragon <b>zebra</b> ${7*7}")
    page.press("#prompt textarea", "Tab")
    page.wait_for_selector("#reading [data-state=told]")
    assert said.inner_text().startswith("This model does not know: 'dragon', 'b', 'zebra', '7'. ")
    assert said.evaluate("p => p.scrollHeight <= p.clientHeight")  # all of it is seen
    assert places() == before
    page.click("#generate")
    _done(page)
    assert "'dragon'" in said.inner_text()
    assert places() == before
    _keep(page, f"{name}-told")

    page.fill("#prompt textarea", "red")
    page.press("#prompt textarea", "Enter")
    page.wait_for_selector("#reading >> text=This model may not follow the prompt.")
    _done(page)
    page.click("#examples button >> text=a tall green cactus")
    page.wait_for_selector("#reading [data-state=hint]")
    assert page.input_value("#prompt textarea") == "a tall green cactus"
    assert places() == before

    page.click("#vocabulary button")
    page.wait_for_selector(".tt-vocabulary", state="visible")
    listed = page.inner_text(".tt-vocabulary")
    assert "mushroom" in listed
    assert "checkered" in listed
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    page.locator(".tt-vocabulary").scroll_into_view_if_needed()
    _keep(page, f"{name}-words")
