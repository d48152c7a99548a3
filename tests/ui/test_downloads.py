"""What the page offers of the shown mesh, and that nothing of the previous one remains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.ui.generate.downloads import offer, outputs

VIEW: Any = SimpleNamespace(
    downloads={name: f"download {name}" for name in FORMATS},
    ar=SimpleNamespace(start="ar", stem="ar stem", code="ar code"),
    turntable=SimpleNamespace(animation="animation", still="still"),
    comparison="comparison",
)
FILES = {name: Path(f"/live/a-cup.v2{suffix}") for name, suffix in FORMATS.items()}


def test_all_files_are_offered_and_ar_has_their_common_path() -> None:
    updates = offer(FILES, VIEW)
    assert updates["download usdz"]["value"] == "/live/a-cup.v2.usdz"
    assert all(updates[button]["interactive"] for button in VIEW.downloads.values())
    assert updates["ar"]["interactive"]
    assert updates["ar stem"] == "/live/a-cup.v2"


@pytest.mark.parametrize("names", [[], ["glb"], ["glb", "obj", "stl"], ["usdz"]])
def test_ar_is_disabled_until_glb_and_usdz_are_written(names: list[str]) -> None:
    updates = offer({name: FILES[name] for name in names}, VIEW)
    assert not updates["ar"]["interactive"]
    assert updates["ar stem"] == ""
    for name, button in VIEW.downloads.items():
        assert updates[button]["interactive"] == (name in names)
        assert (updates[button]["value"] is None) == (name not in names)


def test_nothing_of_the_previous_mesh_remains() -> None:
    updates = offer({"glb": FILES["glb"]}, VIEW)
    assert updates["ar code"]["visible"] is False
    assert updates["comparison"]["value"] is None
    for button in ("animation", "still"):
        assert (updates[button]["value"], updates[button]["interactive"]) == (None, False)


def test_outputs_are_the_updated_components() -> None:
    assert sorted(outputs(VIEW)) == sorted(offer(FILES, VIEW))
