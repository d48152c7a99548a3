"""The series of a blend, without a browser: the ZIP has files with the options of the page."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.helpers.launched import launched
from tests.helpers.visitor import Visitor
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.file_options import FileOptions
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate.form import to_fields, to_file_values

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas


def make_series(page: Any, options: FileOptions) -> list[bytes]:
    """Press Make series; the files of the ZIP."""
    config = page.get_config_file()
    (button,) = [one["id"] for one in config["components"] if one["props"].get("elem_id") == "series"]
    (event,) = [one for one in config["dependencies"] if [button, "click"] in map(list, one["targets"])]
    request = Request(
        "a red mushroom", blend="a blue chair", steps=1, resolution=24, texture_size=512, lods=2
    )
    inputs = [2, *to_file_values(options), *to_fields(request)]
    assert len(event["inputs"]) == len(inputs)
    events = Visitor(page.local_url).run(event["id"], inputs)
    (path,) = set(re.findall(r'"path": "([^"]*series\.zip)"', json.dumps(events)))
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_zip_has_no_settings_if_they_are_switched_off(tmp_path: Path) -> None:
    with (
        Engine("small", device="cpu") as engine,
        launched(lambda: build(engine, tmp_path / "served")) as page,
    ):
        for metadata in (True, False):
            files = make_series(page, FileOptions(metadata=metadata, texture_format="jpeg"))
            assert len(files) == 2
            for data in files:
                assert (b"a red mushroom" in data) == metadata
                assert b"image/jpeg" in data
