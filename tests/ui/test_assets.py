"""Scripts and style sheets of the page: placeholders are filled, and JavaScript parses."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("gradio")
from triplaneturbo.ui import assets

FOLDER = Path(assets.__file__).parent
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".js", ".css"))


def filled(name: str) -> str:
    return assets.read(name, **dict.fromkeys(assets.placeholders(name), "</script> \" ' `"))


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_and_includes_are_filled(name: str) -> None:
    text = filled(name)
    assert text
    assert not re.search(r"__[A-Z]|// include ", text)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_scripts_parse(name: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is missing: apt install nodejs")
    script = tmp_path / name
    script.write_text(filled(name), encoding="utf-8")
    done = subprocess.run([node, "--check", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_values_are_inserted_as_json() -> None:
    assert assets.read("show.js", distance=2.5).endswith("viewer, 2.5)]")
    assert '["seed", "prompt"]' in assets.read("form_save.js", names=["seed", "prompt"])


@pytest.mark.parametrize("values", [{}, {"distance": 1, "other": 2}])
def test_missing_and_unknown_values_are_errors(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"show\.js has the placeholders \['distance'\]"):
        assets.read("show.js", **values)
