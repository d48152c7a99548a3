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
WAIT = 60_000  # milliseconds


OpenPage = Callable[..., Any]


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
        self.process.wait(20)

    def stop(self) -> None:
        """As Docker stops it; nothing may have gone wrong."""
        self.process.terminate()
        self.process.wait(20)
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
    """Opens the page at a size and in a theme; at the end nothing may have gone wrong or elsewhere.

    Args:
        mortal: the server may die meanwhile, of which the browser complains.
        prefix: the path below `url` at which the page is.
    """
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
    page.wait_for_selector("[data-state=done]", timeout=WAIT)
    page.wait_for_selector("#viewer canvas", timeout=WAIT)


def places(page: Any) -> list[tuple[str, dict[str, float]]]:
    return [(place, page.locator(place).bounding_box()) for place in PLACES]


def pixels(page: Any) -> np.ndarray:
    """The viewer as it looks [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB"), np.int16)


def shape_in(page: Any, empty: np.ndarray) -> np.ndarray:
    """The colours [N, 3] of the viewer's pixels that are not background, once there are many."""
    for _ in range(60):
        seen = pixels(page)
        shape = seen[np.abs(seen - empty).max(2) > 24]
        if len(shape) > 0.05 * seen.shape[0] * seen.shape[1]:
            return shape
        time.sleep(0.25)
    pytest.fail(f"only {len(shape)} pixels of the viewer are not background")


def download(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()
