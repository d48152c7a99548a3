"""Server and browser fixtures for tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.browsing import CHROMIUM, FLAGS, Launch, OpenPage, milliseconds, served, watched
from tests.helpers.tiny import tiny_model

if TYPE_CHECKING:
    from triplaneturbo.ui.generate.page_jobs import PageJobs


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served("small", tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="session")
def world_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with a toy-world model, which has a closed vocabulary."""
    folder = tmp_path_factory.mktemp("world")
    with served(str(tiny_model(folder / "model")), folder) as url:
        yield url


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """Return a function that starts Chromium with Playwright's options."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        yield lambda **options: playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=milliseconds(30), **options
        )


@pytest.fixture(scope="session")
def browser(launch: Launch) -> Iterator[Any]:
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[OpenPage]:
    with watched(browser, url) as open_page:
        yield open_page


@pytest.fixture
def open_world(browser: Any, world_url: str) -> Iterator[OpenPage]:
    with watched(browser, world_url) as open_page:
        yield open_page


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[PageJobs]:
    from tests.helpers.page_jobs import page_jobs  # needs gradio, which not all tests here do

    with page_jobs(tmp_path) as jobs:
        yield jobs
