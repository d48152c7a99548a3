"""Latency of Live mode: seconds from the last keystroke to the preview and to the textured mesh on screen.

    python -m benchmarks.live [--repeats 5]

Starts app.py with the built-in model and types into its page with Live enabled, in a Chromium that renders in
software on the same cores: first only WebGL, as on a machine without a GPU, then the whole page, as in the
tests, then with a canvas of one pixel, as if drawing took no time. With a GPU in the browser, times are
nearer to the last.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import sync_playwright

from tests.helpers.browsing import CHROMIUM, DESK, FLAGS, Server, free_port, milliseconds

PROMPTS = (
    "a red mushroom",
    "a blue chair",
    "a green cactus",
    "a striped fish",
    "a yellow duck",
    "a tall tree",
)
# What the browser draws in software. With a canvas of one pixel, the viewer is not the bottleneck.
DRAWING = ("WebGL in software", "page in software", "canvas hidden")
DONE = "#download-usdz:not([disabled])"


def _type_prompt(page: Any, prompt: str) -> tuple[float, float]:
    """Type a prompt; returns the seconds to the first and to the last file that the viewer shows."""
    page.fill("#prompt textarea", "")
    page.evaluate("window.ttViewer.shown.length = 0")
    page.locator("#prompt textarea").press_sequentially(prompt, delay=40)
    since = page.evaluate("performance.now()")
    page.wait_for_function(
        f"document.querySelector('.tt-caption').innerText.includes({prompt!r})", timeout=milliseconds(60)
    )
    page.wait_for_selector(DONE, timeout=milliseconds(60))
    page.wait_for_function(
        f"window.ttViewer.shown.some((file) => file.at > {since})", timeout=milliseconds(60)
    )
    page.wait_for_timeout(2000)  # a slow viewer may still open the textured file after the preview
    shown = [file["at"] for file in page.evaluate("window.ttViewer.shown") if file["at"] > since]
    return (shown[0] - since) / 1e3, (shown[-1] - since) / 1e3


def main() -> None:
    """Run the benchmark and print the medians."""
    parser = argparse.ArgumentParser(description="Measure the latency of Live mode.")
    parser.add_argument("--repeats", type=int, default=5, help="number of prompts, at most 5")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server("small", Path(folder), free_port())
        print(f"{'since the last keystroke, incl. 0.25 s pause':46}preview textured")
        for forming, drawing in product((False, True), DRAWING):
            flags = [*FLAGS, "--disable-gpu-compositing"] if drawing == "WebGL in software" else FLAGS
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
            page = browser.new_page(viewport={"width": DESK[0], "height": DESK[1]})
            page.goto(server.url)
            page.wait_for_selector(".tt-status")
            page.check("#live input")
            page.set_checked("#forming input", forming)
            page.fill("#seed input", str(len(DRAWING) * forming + DRAWING.index(drawing)))
            if drawing == "canvas hidden":
                page.add_style_tag(content="canvas { width: 1px !important; height: 1px !important; }")
            _type_prompt(page, PROMPTS[0])  # starts the viewer
            times = [_type_prompt(page, prompt) for prompt in PROMPTS[1 : 1 + arguments.repeats]]
            name = f"{'every' if forming else 'first'} step shown, {drawing}"
            preview, textured = (median(each) for each in zip(*times, strict=True))
            print(f"{name:44}{preview:7.2f} s{textured:9.2f} s", flush=True)
            browser.close()
        server.stop()


if __name__ == "__main__":
    main()
