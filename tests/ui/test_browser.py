"""Browser tests of the Generate tab: from a prompt to the viewer and downloads."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
import pytest
import trimesh

from tests.helpers.browsing import (
    DESK,
    PHONE,
    TABLET,
    OpenPage,
    done,
    download,
    generate,
    keep,
    pixels,
    places,
    set_steps,
    shape_in,
)
from tests.helpers.pace import until

pytestmark = pytest.mark.browser


def test_prompt_gives_a_mesh_in_the_viewer(open_page: OpenPage) -> None:
    page = open_page()
    assert "untrained" not in page.content()
    assert page.locator("#download-glb").is_disabled()
    assert page.locator("#download-obj").is_disabled()
    before, empty = places(page), pixels(page)
    keep(page, "desk-before")
    generate(page, "a red mushroom")
    page.wait_for_selector("[data-state=running]")
    assert page.locator("#generate").is_disabled()
    assert page.locator("#cancel").is_enabled()
    keep(page, "desk-during")
    during = places(page)
    done(page)
    shape = shape_in(page, empty)
    assert len(np.unique(shape // 32, axis=0)) > 8  # shades, not one flat colour
    assert shape.mean() > 60  # well lit
    keep(page, "desk-after")
    assert before == during == places(page)  # nothing has jumped
    page.wait_for_selector("#generate:not([disabled])")  # when all formats are written
    assert page.locator("#cancel").is_disabled()

    name, glb = download(page, "#download-glb")
    assert re.fullmatch(r"a-red-mushroom-0-[0-9a-f]{8}\.glb", name)
    mesh = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    assert f"{len(mesh.faces):,}" in page.inner_text("#facts")
    assert mesh.visual.material.baseColorTexture.size == (1024, 1024)
    name, archive = download(page, "#download-obj")
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
    assert before == places(page)
    keep(page, "desk-error")


def test_keyboard_dark_mode_and_html_in_prompt(open_page: OpenPage) -> None:
    page = open_page(TABLET, "dark")
    empty = pixels(page)
    prompt = "<img src=x onerror=window.hit=1> ${7*7} {{value}} </p>"
    page.fill("#prompt textarea", prompt)
    page.press("#prompt textarea", "Enter")
    done(page)
    assert page.inner_text(".tt-caption") == f"“{prompt}”"
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.body.classList.contains('dark')")
    assert page.locator("#facts img").count() == 0
    until(lambda: shape_in(page, empty).mean() > 60)  # the canvas comes before the mesh
    keep(page, "tablet-dark")


def test_cancel_button(open_page: OpenPage) -> None:
    page = open_page()
    page.click("#options button")
    set_steps(page, 50)
    generate(page, "a tower of fifty steps")
    page.wait_for_selector("text=/step [0-9]+ of 50/")
    keep(page, "desk-options")
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.")
    assert page.locator("#download-glb").is_disabled()  # previews cannot be downloaded
    assert page.locator("#generate").is_enabled()


def test_examples_random_seed_and_invalid_seed_on_phone(open_page: OpenPage) -> None:
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
    keep(page, "phone-error")


def test_a_picture_of_the_empty_viewer_generates_its_prompt_and_a_look_recolours_it(
    open_page: OpenPage,
) -> None:
    page = open_page(DESK)
    keep(page, "first-visit")
    page.click(".tt-first >> text=a grey castle")
    done(page)
    assert page.input_value("#prompt textarea") == "a grey castle"
    assert not page.is_visible("#first-visit")
    vertices = page.inner_text(".tt-numbers div:first-child dd")
    before = places(page, "#looks")
    page.click("#looks button >> text=a blue castle")
    page.wait_for_function("document.querySelector('.tt-caption').innerText.includes('look: a blue castle')")
    done(page)
    assert page.inner_text(".tt-numbers div:first-child dd") == vertices
    assert page.input_value("#look textarea") == "a blue castle"
    assert page.is_checked("#keep-shape input")
    assert places(page, "#looks") == before
    keep(page, "recoloured")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_unknown_words_are_shown_below_the_prompt(open_world: OpenPage, size: tuple[int, int]) -> None:
    page = open_world(size)
    name = f"world-{'phone' if size == PHONE else 'desk'}"

    said = page.locator("#reading p")
    assert "The model knows " in said.inner_text()
    before = places(page, "#reading")
    keep(page, f"{name}-before")
    page.fill("#prompt textarea", "a red dragon <b>zebra</b> ${7*7}")
    page.press("#prompt textarea", "Tab")
    page.wait_for_selector("#reading [data-state=told]")
    assert said.inner_text().startswith("This model does not know: 'dragon', 'b', 'zebra', '7'. ")
    assert said.evaluate("p => p.scrollHeight <= p.clientHeight")  # all of it is seen
    assert places(page, "#reading") == before
    page.click("#generate")
    done(page)
    assert "'dragon'" in said.inner_text()
    assert places(page, "#reading") == before
    keep(page, f"{name}-told")

    page.fill("#prompt textarea", "red")
    page.press("#prompt textarea", "Enter")
    page.wait_for_selector("#reading >> text=This model may not follow the prompt.")
    done(page)
    page.click("#examples button >> text=a tall green cactus")
    page.wait_for_selector("#reading [data-state=hint]")
    assert page.input_value("#prompt textarea") == "a tall green cactus"
    assert places(page, "#reading") == before

    page.click("#vocabulary button")
    page.wait_for_selector(".tt-vocabulary", state="visible")
    listed = page.inner_text(".tt-vocabulary")
    assert "mushroom" in listed
    assert "checkered" in listed
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    page.locator(".tt-vocabulary").scroll_into_view_if_needed()
    keep(page, f"{name}-words")
