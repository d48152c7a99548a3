"""Settings from a GLB: a dropped file fills the form, whatever it contains."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.helpers.browsing import OpenPage
from tests.helpers.shapes import colored
from tests.helpers.tiny import tiny_model
from triplaneturbo.mesh.io import save
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata, Refinement
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate import panels
from triplaneturbo.ui.generate.settings_file import fit

ENGINE: Any = SimpleNamespace(
    name="small",
    adapters=lambda: ["mine"],
    default_steps=lambda adapter: 4,
    model=SimpleNamespace(config=SimpleNamespace(grid_resolution=64)),
)


def test_settings_that_the_page_can_show_are_unchanged() -> None:
    request = Request("a cup", steps=2, resolution=32, adapter="mine", texture_size=2048).checked()
    assert fit(ENGINE, GenerationMetadata(request, "small")) == (request, [])


def test_settings_that_the_page_cannot_show_are_replaced_and_announced() -> None:
    request = Request("a cup", adapter="theirs", texture_size=700, floaters=0.9).checked()
    fitted, notes = fit(ENGINE, GenerationMetadata(request, "<b>full</b>", refinement=Refinement(60)))
    assert notes.pop(0).startswith("The mesh in the file was refined for 60 steps, which is not repeated")
    assert (fitted.adapter, fitted.texture_size, fitted.floaters) == ("", 512, 0.5)
    assert (fitted.steps, fitted.resolution) == (4, 64)
    assert len(notes) == 4
    assert "The floater threshold 0.9 became 0.5." in notes
    assert "<b>" not in panels.restored(notes)


def test_the_button_of_the_history_and_dropped_files_do_the_same(tmp_path: Path) -> None:
    with Engine(str(tiny_model(tmp_path / "tiny")), device="cpu", runs=tmp_path / "runs") as engine:
        config = build(engine, tmp_path / "live").get_config_file()
    ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
    (restore,) = [one for one in config["dependencies"] if "ttDropped = undefined" in str(one["js"])]
    buttons = (ids["settings-file"], ids["dropped-file"])
    assert sorted(map(list, restore["targets"])) == sorted([button, "click"] for button in buttons)


@pytest.mark.browser
def test_dropped_glb_fills_the_form(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    request = Request('<img src=x onerror="document.title=1">', seed=77, steps=3, resolution=32).checked()
    metadata = GenerationMetadata(request, "small", Placement(0.25, "z", "ground"))
    path = save(colored(), tmp_path / "a.glb", metadata=metadata)
    _drop(page, path.read_bytes())
    page.wait_for_function("document.querySelector('#status').innerText.includes('Restored')")
    assert page.locator("#prompt textarea").input_value() == request.prompt
    assert page.locator("#seed input").input_value() == "77"
    page.click("#placing button")
    assert page.locator("#size input").input_value() == "0.25"
    assert page.title() == "triplaneturbo"


@pytest.mark.browser
@pytest.mark.parametrize(
    "data", [b"", b"<html>", json.dumps({"asset": {}}).encode()], ids=["empty", "html", "json"]
)
def test_dropped_file_of_another_kind_is_one_sentence(open_page: OpenPage, data: bytes) -> None:
    page = open_page()
    page.locator("#prompt textarea").fill("a cup")
    _drop(page, data)
    page.wait_for_function("document.querySelector('#status').innerText.includes('contains no settings')")
    assert page.locator("#prompt textarea").input_value() == "a cup"


def _drop(page: Any, data: bytes) -> None:
    """Drop a file on the body of the page, once its scripts listen."""
    page.wait_for_function("window.ttAr")
    transfer = page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "a.glb"));
          return transfer;
        }""",
        list(data),
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
