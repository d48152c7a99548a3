"""Browser test helpers: app.py as a server, and its page in headless Chromium.

Screenshots are written to the folder in TRIPLANETURBO_SCREENSHOTS, if it is set.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.pace import patience, slowness, until
from triplaneturbo.models.catalog import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP toys.example.com 127.0.0.1",  # a host name other than localhost
]
DESK, TABLET, PHONE = (1440, 900), (1024, 768), (390, 844)
PLACES = ("#prompt", "#generate", "#status", "#viewer", "#facts", "#downloads")
STEPS = "#options input[type=number]"

OpenPage = Callable[..., Any]
Launch = Callable[..., Any]


def milliseconds(seconds: float) -> float:
    """Return `patience(seconds)` as Playwright takes it."""
    return 1000 * patience(seconds)


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Server:
    """app.py at 127.0.0.1, with proxy variables that point to a dead proxy.

    Attributes:
        url: address of the page.
        said: lines that it has printed.
    """

    def __init__(self, model: str, folder: Path, port: int, *flags: str) -> None:
        ways = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        command = [sys.executable, "app.py", "--model", model, "--device", "cpu", "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, "--outputs", str(folder / "history"), *flags],
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(ways, "http://127.0.0.1:9"), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        atexit.register(self.process.kill)  # in case a test fails before it stops the server
        self.url = f"http://127.0.0.1:{port}/"
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Open "):
                break
        else:
            pytest.fail("app.py ended: " + "".join(self.said))
        # Keep reading its output, so that the pipe never fills up.
        threading.Thread(target=lambda: self.said.extend(self.process.stdout or ()), daemon=True).start()

    def die(self) -> None:
        """Kill the server, as a power cut does."""
        self.process.kill()
        self.process.wait(patience(20))

    def stop(self) -> None:
        """Stop the server as Docker does, and assert that it exits cleanly."""
        self.process.terminate()
        self.process.wait(patience(20))
        assert "Traceback" not in "".join(self.said)
        assert self.process.returncode == 0


@contextmanager
def served(model: str, folder: Path, *flags: str) -> Iterator[str]:
    """Run a server and yield its address."""
    server = Server(model, folder, free_port(), *flags)
    try:
        yield server.url
    finally:
        server.stop()
    assert not list(folder.glob("history/live-*"))


@contextmanager
def watched(browser: Any, url: str, mortal: bool = False, prefix: str = "") -> Iterator[OpenPage]:
    """Yield a function that opens the page; at the end assert that there were no errors.

    Waits time out after a minute, or later on a slow machine.

    Args:
        mortal: ignore console errors, as when the server is killed during the test.
        prefix: path of the page below `url`.
    """
    contexts, wrong, hosts = [], [], set()

    def note(message: Any) -> None:
        if message.type == "error" and "WebGPU" not in message.text:  # unavailable here: WebGL is used
            wrong.append(f"{message.text} {message.location}")

    def open_page(size: tuple[int, int] = DESK, theme: str = "light", scale: float = 1) -> Any:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, device_scale_factor=scale)
        context.set_default_timeout(milliseconds(60))
        contexts.append(context)
        page = context.new_page()
        page.on(
            "request",
            lambda request: hosts.add(re.sub(r"^(\w+:(//[^/]*)?).*", r"\1", request.url, flags=re.S)),
        )
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{url}{prefix}?__theme={theme}")
        page.wait_for_selector("#generate")
        page.wait_for_selector(".tt-status")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert mortal or not wrong, wrong
    assert url.rstrip("/") in hosts
    assert hosts <= {url.rstrip("/"), "data:", "blob:" + url.rstrip("/"), "blob:"}


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("TRIPLANETURBO_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=page.viewport_size["width"] < 500)


def generate(page: Any, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#generate")


def done(page: Any) -> None:
    page.wait_for_selector("[data-state=done]")
    page.wait_for_selector("#viewer canvas")


def set_steps(page: Any, steps: int) -> None:
    """Set the number of steps in the open options, whose values are filled in after they appear."""
    page.wait_for_function(
        "() => { const [text, range] = ['number', 'range'].map("
        "(type) => document.querySelector(`#options input[type=${type}]`));"
        " return text && range && text.value && text.value === range.value; }"
    )
    field = page.locator(STEPS).first

    def accepted() -> bool:
        # Values that a reloaded page restores may arrive after what is typed here and replace it.
        field.fill(str(steps))
        field.press("Tab")
        page.wait_for_timeout(500)
        return page.input_value("#options input[type=range] >> nth=0") == str(steps)

    until(accepted)


def still(page: Any) -> None:
    """Wait until the viewer's image no longer changes."""
    shown = [pixels(page)]

    def same() -> bool:
        page.wait_for_timeout(500 * slowness())
        shown.append(pixels(page))
        return np.array_equal(shown[-2], shown[-1])

    until(same)


def places(page: Any, *more: str) -> dict[str, dict[str, float]]:
    """Return the box of each of `PLACES` and `more`, independent of scrolling, once nothing moves."""

    def boxes() -> dict[str, dict[str, float]]:
        x, y = page.evaluate("[scrollX, scrollY]")
        found = {place: page.locator(place).bounding_box() for place in (*PLACES, *more)}
        return {
            place: {**box, "x": round(box["x"] + x, 1), "y": round(box["y"] + y, 1)}
            for place, box in found.items()
        }

    seen = [boxes()]

    def same() -> bool:
        page.wait_for_timeout(200)
        seen.append(boxes())
        return seen[-2] == seen[-1]

    until(same)
    return seen[-1]


class Requests:
    """Open requests of a page, counted from now on."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._open: set[Any] = set()
        page.on("request", lambda request: self._open.add(request))
        page.on("requestfinished", lambda request: self._open.discard(request))
        page.on("requestfailed", lambda request: self._open.discard(request))

    def end(self) -> None:
        """Wait until none has been open for a second, so that the page does not notice the server's end.

        The browser does not always report the end of a stream: after half a minute all are taken for ended.
        """
        started = time.monotonic()
        quiet_since = [started]

        def ended() -> bool:
            self._page.wait_for_timeout(100)
            if any("/queue/" in request.url for request in self._open):
                quiet_since[0] = time.monotonic()
            now = time.monotonic()
            return now - quiet_since[0] > 1 or now - started > 30

        until(ended)
        self._open.clear()


def pixels(page: Any) -> np.ndarray:
    """Return the viewer's pixels [H, W, 3], without the examples that lie over an empty one."""
    page.evaluate("document.querySelector('#first-visit')?.style.setProperty('visibility', 'hidden')")
    return np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB"), np.int16)


def shape_in(page: Any, empty: np.ndarray) -> np.ndarray:
    """Wait for a mesh in the viewer and return the colours of its pixels [N, 3]."""

    def shape() -> np.ndarray:
        seen = pixels(page)
        return seen[np.abs(seen - empty).max(2) > 24]

    until(lambda: len(shape()) > 0.05 * empty.shape[0] * empty.shape[1], every=0.25)
    return shape()


def download(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()
