"""Browser tests of the Advanced tab: from a prompt list to a mesh made with the trained adapter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from tests.helpers.browsing import (
    DESK,
    PHONE,
    TABLET,
    Server,
    download,
    free_port,
    keep,
    milliseconds,
    watched,
)
from tests.helpers.fake_hub import Hub
from triplaneturbo.models.catalog import SMALL

pytestmark = pytest.mark.browser

LIST = "a red cup\na {blue|green} cup\n\na red cup\na dragon\n"
RUN = "#run-status .tt-words"
MINUTES = 240  # seconds
TOKEN = "hf_OnlyTheHubIsToKnowThis"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({}, token=TOKEN) as hub:
        yield hub


def training(page: Any) -> None:
    page.get_by_role("tab", name="Advanced").click()
    page.wait_for_selector("#train-prompts textarea", state="visible")


def says(page: Any, place: str, words: str, seconds: float = 60) -> None:
    """Wait until the text of an element matches a pattern."""
    page.wait_for_function(
        "([place, words]) => new RegExp(words).test(document.querySelector(place)?.textContent ?? '')",
        arg=[place, words],
        timeout=milliseconds(seconds),
    )


def fill(page: Any, label: str, value: object) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(str(value))
    field.press("Tab")


def iterations(page: Any) -> int:
    found = re.search(r"(\d+) of", page.inner_text("#run-status .tt-numbers"))
    assert found is not None
    return int(found[1])


def upload(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#train-upload")
    chooser.value.set_files(path)


def test_training_survives_pause_reload_and_server_restart(
    browser: Any, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPLANETURBO_ADAPTERS", str(tmp_path / "adapters"))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    port = free_port()
    server = Server("small", tmp_path, port)
    with watched(browser, server.url, mortal=True) as open_page:
        page = open_page(DESK)
        training(page)
        says(page, "#run-status", "No run yet")
        page.fill("#train-prompts textarea", LIST)
        says(page, "#train-counted", "2 prompts for training, 1 held out")
        says(page, "#train-counted", "1 blank, 1 duplicated")
        says(page, "#train-counted", "“a dragon”: it does not know 'dragon'")
        says(page, "#train-estimate", r"Try\d+ min")
        page.click("#train-begin")
        says(page, "#train-status", "The name '' is invalid")
        page.locator("#train-name").locator("textarea, input").fill("cups")
        page.get_by_text("Settings", exact=True).click()
        for label, value in {
            "Iterations": 12,
            "Batch size": 1,
            "Preview interval": 6,
            "Learning rate": 0,
        }.items():
            fill(page, label, value)
        says(page, "#train-estimate", r"Custom\d+ s")
        page.click("#train-begin")
        says(page, "#train-status", "learning rate should be above 0")
        fill(page, "Learning rate", 0.001)
        other = open_page(PHONE)  # also shows the run
        training(other)
        says(other, "#run-status", "No run yet")
        page.click("#train-begin")
        says(page, RUN, "cups: (getting ready|drawing|loading)")
        says(other, RUN, "cups")
        assert other.locator("#train-begin").is_disabled()
        other.context.close()
        # The page polls every two seconds and may miss the first iterations.
        says(page, "#run-status .tt-numbers", "Iterations[1-9][0-9]* of 12", MINUTES)
        page.click("#run-pause")
        says(page, RUN, "cups is paused and saved")
        paused = iterations(page)
        assert 1 <= paused < 12
        keep(page, "training-paused")

        page.reload()  # keeps the same tab open
        says(page, RUN, "cups is paused and saved")
        assert iterations(page) == paused
        assert page.input_value("#train-prompts textarea").splitlines()[-1].endswith("cup")
        page.click("#run-resume")
        says(page, RUN, "cups: (drawing|training)", MINUTES)
        server.die()
        says(page, RUN, "server")
        server = Server("small", tmp_path, port)
        assert any("The run cups is at step" in line for line in server.said)
        says(page, RUN, "cups was interrupted when the server stopped")
        page.click("#run-resume")
        says(page, RUN, "cups is saved\\. Choose it", MINUTES)
        assert iterations(page) == 12
        page.wait_for_selector("#run-sheet img")
        says(page, "#run-scores", "Volume, held out")
        pictures = page.locator("#run-previews img")
        pictures.first.wait_for()
        assert pictures.count() == 3  # of iterations 0, 6 and 12
        assert re.findall(r"\d+", page.locator("#run-previews").inner_text()) == ["12", "6", "0"]
        sizes = page.eval_on_selector_all(
            "#run-previews img, #run-sheet img", "all => all.map(i => i.naturalWidth)"
        )
        assert min(sizes) > 300
        page.locator("#run-plots .tt-plot").first.wait_for()
        assert page.locator("#run-plots .tt-plot:visible").count() >= 4
        for size in (DESK, TABLET, PHONE):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
            assert not page.locator("#train-told, #train-key").filter(visible=True).count()
            keep(page, f"training-done-{size[0]}")
        page.set_viewport_size({"width": DESK[0], "height": DESK[1]})
        name, data = download(page, "#run-download")
        assert name == "cups.safetensors"
        learned, own = load(data), load((SMALL / "adapter.safetensors").read_bytes())
        assert learned.keys() == own.keys()
        assert any(
            np.abs(learned[key].astype(np.float32) - own[key].astype(np.float32)).max() > 0 for key in own
        )

        page.get_by_text("Push to the Hub", exact=True).click()
        for token, said in (("hf_wrong", "The hub rejected this token"), (TOKEN, "Published at http")):
            page.get_by_label("Repository").fill("you/cups")
            page.get_by_label("Token").fill(token)
            page.click("#hub-push")
            says(page, "#hub-status", said)
            assert page.get_by_label("Token").input_value() == ""
        assert hub.repos["you/cups"].private
        assert hub.repos["you/cups"].files["adapter.safetensors"] == data
        assert b"on 2 prompts with" in hub.repos["you/cups"].files["README.md"]
        assert TOKEN not in "".join(server.said)
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]

        page.get_by_role("tab", name="Generate").click()
        page.get_by_label("Adapter", exact=True).click()
        page.get_by_role("option", name="cups").click()
        page.fill("#prompt textarea", "a red cup")
        page.click("#generate")
        page.wait_for_selector("#status [data-state=done]")

        training(page)
        page.click("#run-discard")
        says(page, "#run-discard", "Discard permanently")
        page.click("#run-discard")
        says(page, "#run-status", "No run yet")
        assert not (tmp_path / "runs" / "cups").exists()
        assert (tmp_path / "adapters" / "cups" / "adapter.safetensors").is_file()
    server.stop()


def test_password_and_uploaded_lists(browser: Any, tmp_path: Path) -> None:
    server = Server("small", tmp_path, free_port(), "--admin-password", "sesame")
    (tmp_path / "a.csv").write_text("id,caption,title\n1,a red cup,one\n2,,two\n3,a blue duck,three\n")
    (tmp_path / "b.txt").write_bytes("a red cup".encode("utf-16"))
    (tmp_path / "c.json").write_text('{"train": ["a red cup", 5], "val": ["a blue duck"]}')
    with watched(browser, server.url) as open_page:
        page = open_page(PHONE, "dark")
        page.get_by_role("tab", name="Advanced").click()
        page.get_by_label("Password").fill("simsalabim")
        page.click("#unlock-button")
        says(page, "#unlock-status", "Wrong administrator password")
        assert not page.is_visible("#train-prompts")
        page.get_by_label("Password").fill("sesame")
        page.get_by_label("Password").press("Enter")
        page.wait_for_selector("#train-prompts textarea", state="visible")
        upload(page, tmp_path / "a.csv")
        says(page, "#train-counted", "1 prompt for training, 1 held out.*1 blank.*taken from caption")
        assert page.input_value("#train-prompts textarea") == "a red cup\na blue duck"
        assert page.get_by_label("Column").input_value() == "caption"
        page.get_by_label("Column").click()
        page.get_by_role("option", name="title").click()
        says(page, "#train-counted", "“one”: ")
        upload(page, tmp_path / "b.txt")
        page.wait_for_function("document.querySelector('#train-prompts textarea').value === 'a red cup'")
        upload(page, tmp_path / "c.json")
        says(page, "#train-counted", "Choose the column of 'c.json'|1 prompt for training")
        unnamed = page.eval_on_selector_all(
            "#training button, #training input, #training textarea",
            """all => all.filter(one => one.checkVisibility() && !(one.ariaLabel || one.innerText || one.title
               || one.labels?.length || one.closest('label')?.innerText)).map(one => one.outerHTML)""",
        )
        assert unnamed == []
        keep(page, "training-phone-dark")
    server.stop()
