"""The page in headless Chromium, served by app.py itself with the built-in model.

Screenshots go to the folder named by TRIPLANETURBO_SCREENSHOTS, if any.
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

from tests.pace import patience, slowness, until
from triplaneturbo.models import ROOT

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
    "--host-resolver-rules=MAP toys.example.com 127.0.0.1",  # a name that is not this machine's
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
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Server:
    """app.py at 127.0.0.1, behind a proxy that leads nowhere, as in many an office.

    Attributes:
        url: its address.
        said: what it has printed.
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
        atexit.register(self.process.kill)  # where a test fails before it stops it
        self.url = f"http://127.0.0.1:{port}/"
        self.said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("Open "):
                break
        else:
            pytest.fail("app.py ended: " + "".join(self.said))
        # What it says later is read on, so that it never waits for a reader.
        threading.Thread(target=lambda: self.said.extend(self.process.stdout or ()), daemon=True).start()

    def die(self) -> None:
        """As in a power cut."""
        self.process.kill()
        self.process.wait(patience(20))

    def stop(self) -> None:
        """As Docker stops it; nothing may have gone wrong."""
        self.process.terminate()
        self.process.wait(patience(20))
        assert "Traceback" not in "".join(self.said)
        assert self.process.returncode == 0


@contextmanager
def served(model: str, folder: Path, *flags: str) -> Iterator[str]:
    """The address of a server, as long as it is entered."""
    server = Server(model, folder, free_port(), *flags)
    try:
        yield server.url
    finally:
        server.stop()
    assert not list(folder.glob("history/live-*"))


@contextmanager
def watched(browser: Any, url: str, mortal: bool = False, prefix: str = "") -> Iterator[OpenPage]:
    """Open the page at a size, in a theme and at a display scale; at the end nothing may have gone wrong.

    Whatever a test waits for in the page has a minute, or more on a slow machine.

    Args:
        mortal: the server may die meanwhile, of which the browser complains.
        prefix: the path below `url` at which the page is.
    """
    contexts, wrong, hosts = [], [], set()

    def note(message: Any) -> None:
        if message.type == "error" and "WebGPU" not in message.text:  # there is none here: WebGL it is
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
    """Set the number of steps in the unfolded options, which get their values some time after they appear."""
    page.wait_for_function(
        "() => { const [text, range] = ['number', 'range'].map("
        "(type) => document.querySelector(`#options input[type=${type}]`));"
        " return text && range && text.value && text.value === range.value; }"
    )
    field = page.locator(STEPS).first
    field.fill(str(steps))
    field.press("Tab")
    page.wait_for_function(f"document.querySelector('#options input[type=range]')?.value === '{steps}'")


def still(page: Any) -> None:
    """Wait until the viewer's picture no longer changes."""
    shown = [pixels(page)]

    def same() -> bool:
        page.wait_for_timeout(500 * slowness())
        shown.append(pixels(page))
        return np.array_equal(shown[-2], shown[-1])

    until(same)


def places(page: Any, *more: str) -> dict[str, dict[str, float]]:
    """The box of each of `PLACES` and `more` on the page, wherever it is scrolled to, once nothing moves."""

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
    """The requests of a page that are under way, from now on."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._open: set[Any] = set()
        page.on("request", lambda request: self._open.add(request))
        page.on("requestfinished", lambda request: self._open.discard(request))
        page.on("requestfailed", lambda request: self._open.discard(request))

    def end(self) -> None:
        """Wait until there was none for a second: nothing tells the page of its server's end then."""
        quiet_since = [time.monotonic()]

        def ended() -> bool:
            self._page.wait_for_timeout(100)
            if any("/queue/" in request.url for request in self._open):
                quiet_since[0] = time.monotonic()
            return time.monotonic() - quiet_since[0] > 1

        until(ended)


def pixels(page: Any) -> np.ndarray:
    """The viewer as it looks [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB"), np.int16)


def shape_in(page: Any, empty: np.ndarray) -> np.ndarray:
    """The colours [N, 3] of the viewer's pixels that are not background, once there are many."""

    def shape() -> np.ndarray:
        seen = pixels(page)
        return seen[np.abs(seen - empty).max(2) > 24]

    until(lambda: len(shape()) > 0.05 * empty.shape[0] * empty.shape[1], every=0.25)
    return shape()


def download(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()
