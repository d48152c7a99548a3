"""Browser tests of iterating: live mode, variants, series, history and the queue."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import trimesh
from gradio_client.client import Job
from gradio_client.utils import Status

from tests.helpers.browsing import (
    DESK,
    PHONE,
    STEPS,
    TABLET,
    OpenPage,
    done,
    download,
    generate,
    keep,
    milliseconds,
    served,
    still,
    watched,
)
from tests.helpers.pace import slowness, until
from tests.helpers.visitor import api_client

pytestmark = pytest.mark.browser

IDLE = "#generate:not([disabled])"


def _finish(page: Any) -> None:
    """Wait until the result and all its files are complete."""
    done(page)
    page.wait_for_selector(f"{IDLE} >> visible=true")
    page.wait_for_selector("#download-usdz:not([disabled])")


def _tab(page: Any, name: str) -> None:
    page.click(f"#tabs [role=tab] >> text={name}")


def test_live_mode_shows_the_last_prompt_and_keeps_the_camera(open_page: OpenPage) -> None:
    page = open_page()
    page.check("#live input")
    page.locator("#prompt textarea").press_sequentially("a red mushroom", delay=30)
    done(page)
    page.wait_for_function("document.querySelector('#facts').innerText.includes('a red mushroom')")
    page.wait_for_selector("#download-usdz:not([disabled])")
    still(page)
    page.evaluate("window.ttViewer.shown.length = 0")
    box = page.locator("#viewer canvas").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    for step in range(1, 9):  # slow enough for software rendering
        page.mouse.move(box["x"] + 300 + 15 * step, box["y"] + 200 + 4 * step)
        page.wait_for_timeout(80 * slowness())
    page.mouse.up()

    results: list[str] = []
    page.expose_function("noted", lambda caption: results.append(caption))
    page.evaluate(
        "new MutationObserver(() => noted(document.querySelector('.tt-caption').innerText))"
        ".observe(document.body, {subtree: true, childList: true, characterData: true})"
    )
    text = page.locator("#prompt textarea")
    text.press("End")
    text.press_sequentially(" on a brown table xyz"[:20], delay=40)
    text.press("Backspace")
    text.press("Backspace")
    text.press("Backspace")
    wanted = page.input_value("#prompt textarea")
    page.wait_for_function(
        f"document.querySelector('#facts').innerText.includes({json.dumps(wanted.strip())})"
    )
    page.wait_for_selector("#download-usdz:not([disabled])")
    still(page)
    page.wait_for_timeout(1500)  # a late, outdated result would appear by now
    assert page.inner_text(".tt-caption") == f"“{wanted.strip()}”"
    assert results[-1] == f"“{wanted.strip()}”"
    cameras = page.evaluate("window.ttViewer.shown.map((file) => file.camera)")
    assert abs(cameras[-1][0] - 60) > 1  # the camera was moved
    assert len(cameras) == 1 or cameras[-1] == pytest.approx(cameras[-2], abs=1e-3)
    keep(page, "desk-live")


def test_blank_prompts_or_disabled_live_mode_start_nothing(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#prompt textarea").press_sequentially("a cup", delay=20)
    page.wait_for_timeout(600)
    page.check("#live input")
    page.fill("#prompt textarea", "   ")
    page.wait_for_timeout(600)
    assert page.inner_text(".tt-words").startswith("Ready")


def test_variants_variations_and_series(open_page: OpenPage) -> None:
    page = open_page()
    page.fill("#prompt textarea", "a red mushroom")
    page.click("#count label >> text=4")
    page.click("#generate")
    page.wait_for_selector("text=Click one to open it")
    tiles = page.locator("#variants .thumbnail-item")
    assert tiles.count() == 4
    assert page.locator("#variants .caption-label").all_inner_texts() == [f"seed {seed}" for seed in range(4)]
    keep(page, "desk-variants")
    tiles.nth(2).click()
    page.wait_for_function("document.querySelector('#seed input').value === '2'")
    _finish(page)
    name, glb = download(page, "#download-glb")
    assert name.startswith("a-red-mushroom-2-")
    assert len(trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh").faces) > 1000

    page.click("#more")
    page.wait_for_selector("text=Click one to open it")
    captions = page.locator("#variants .caption-label").all_inner_texts()
    assert len(captions) == 4
    assert all(re.fullmatch(r"2 ~ \d+", caption) for caption in captions)
    tiles.nth(0).click()
    page.click("#mixing button")
    page.wait_for_selector("#variation input")
    page.wait_for_function("document.querySelector('#variation input').value === '0.2'")
    _finish(page)
    varied = captions[0].split()[-1]
    page.click("#more")  # now around that variation
    page.wait_for_function(
        "!document.querySelector('#variants').innerText.includes(' ~ ' + VARIED)".replace("VARIED", varied)
    )
    page.wait_for_selector("text=Click one to open it")
    tiles.nth(0).click()
    page.wait_for_function(f"document.querySelector('#variation-path textarea').value === '{varied}:0.2'")
    _finish(page)

    page.fill("#blend textarea", "a blue chair")
    page.locator("#series").click()
    page.wait_for_selector("#download-series:not([disabled])", timeout=milliseconds(120))
    keep(page, "desk-series")
    _, archive = download(page, "#download-series")
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        names = sorted(files.namelist())
        assert [name[:3] for name in names] == ["00-", "01-", "02-", "03-", "04-"]
        for one in names:
            assert len(trimesh.load(io.BytesIO(files.read(one)), file_type="glb", force="mesh").faces) > 500


def test_downloads_and_debug_images(open_page: OpenPage) -> None:
    page = open_page()
    generate(page, "a blue chair")
    _finish(page)
    faces = page.inner_text("#facts")
    for name in ("glb", "obj", "ply", "stl", "usdz"):
        file, data = download(page, f"#download-{name}")
        if name == "usdz":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                assert archive.testzip() is None
            continue
        if name == "obj":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                (inside,) = [one for one in archive.namelist() if one.endswith(".obj")]
                data = archive.read(inside)
        mesh = trimesh.load(
            io.BytesIO(data), file_type=name, force="mesh", process=False, skip_materials=name == "obj"
        )
        assert f"{len(mesh.faces):,}" in faces, file
    assert "Ready for printing" in page.inner_text(".tt-check")
    _tab(page, "Pictures")
    page.wait_for_selector("#pictures .thumbnail-item")
    captions = page.locator("#pictures .caption-label").all_inner_texts()
    assert captions == ["Wireframe", "Normals", "UV atlas", "Texture"]
    page.wait_for_timeout(500)
    keep(page, "desk-pictures")


def test_history_is_kept_packed_restored_and_deleted(open_page: OpenPage) -> None:
    page = open_page()
    page.fill("#seed input", "7")
    generate(page, "a red mushroom")
    _finish(page)
    page.reload()
    _tab(page, "History")
    page.wait_for_selector("#history .thumbnail-item")
    assert page.locator("#history .caption-label").all_inner_texts() == ["a red mushroom"]
    page.locator("#history .thumbnail-item").last.click()
    page.wait_for_selector("#viewer canvas")
    page.wait_for_selector("#past-restore:not([disabled])")
    keep(page, "desk-history")
    name, glb = download(page, "#download-glb")
    assert name.startswith("a-red-mushroom-7-")
    assert len(trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh").faces) > 1000
    page.fill("#prompt textarea", "a hat")
    page.fill("#seed input", "8")
    page.click("#past-restore")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a red mushroom'")
    page.wait_for_function("document.querySelector('#seed input').value === '7'")
    generate(page, "a cup")
    _finish(page)
    page.click("#past-pack")
    page.wait_for_selector("#past-zip:not([disabled])")
    _, archive = download(page, "#past-zip")
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert [one["prompt"] for one in json.loads(files.read("manifest.json"))] == [
            "a cup",
            "a red mushroom",
        ]
    page.locator("#history .thumbnail-item").first.click()
    page.wait_for_selector("#past-delete:not([disabled])")
    page.click("#past-delete")
    page.wait_for_function("document.querySelectorAll('#history .thumbnail-item').length === 1")
    other = open_page()  # another browser has its own history
    _tab(other, "History")
    other.wait_for_timeout(1000)
    assert other.locator("#history .thumbnail-item").count() == 0


def test_full_queue_estimates_the_wait(browser: Any, tmp_path: Path) -> None:
    with served("small", tmp_path, "--queue", "1") as url, watched(browser, url) as open_page:
        page = open_page(TABLET)
        others = [api_client(url, tmp_path / name) for name in "ab"]
        jobs = [others[0].submit("a tower", count=8, steps=50, api_name="/variants")]
        _begun(jobs[0], page)
        generate(page, "a cup")
        page.wait_for_selector("text=Waiting: 1 job ahead")
        page.click("#cancel")
        page.wait_for_selector("text=Cancelled.")
        jobs.append(others[1].submit("a hat", api_name="/generate"))
        _begun(jobs[1], page)
        page.click("#generate")
        page.wait_for_selector("text=/The queue is full; try again in [0-9]+ s/")
        assert page.locator("[data-state=error]").count() == 1
        keep(page, "tablet-full")
        assert not any(job.done() for job in jobs)


def _begun(job: Job, page: Any) -> None:
    """Wait until the engine has received the job."""
    until(lambda: job.status().code is Status.PROCESSING, every=0.1)
    page.wait_for_timeout(1000 * slowness())


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_controls_have_names_and_keyboard_access(open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page(size)
    page.click("#mixing button")
    page.click("#options button")
    for inside in ("#variation input", STEPS):
        page.locator(inside).first.wait_for()
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, textarea, select")]
        .filter((one) => one.offsetParent !== null && one.tabIndex >= 0)
        .filter((one) => !(one.innerText || one.ariaLabel || one.title || one.placeholder
          || (one.labels && [...one.labels].some((label) => label.innerText.trim()))
          || one.getAttribute("aria-labelledby")))
        .map((one) => one.outerHTML.slice(0, 200))""")
    assert nameless == []
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    page.focus("#prompt textarea")
    page.keyboard.type("a cup")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "generate":
            break
    page.keyboard.press("Enter")
    done(page)
    keep(page, f"{'phone' if size == PHONE else 'desk'}-all")
