"""The Blender add-on in a headless Blender, with a server in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT

ADDON = ROOT / "clients" / "blender" / "triplaneturbo_blender.py"
pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")

# Runs in Blender: installs the add-on as a user does, and prints what each call did.
SCRIPT = """
import json, sys, bpy, numpy
numpy.bool = bool  # Debian 12's glTF importer uses a name that its numpy no longer has
addon, calls = sys.argv[-2], json.loads(sys.argv[-1])
bpy.ops.preferences.addon_install(filepath=addon, overwrite=True)
bpy.ops.preferences.addon_enable(module="triplaneturbo_blender")
scene = bpy.context.scene
for server, prompt, seed, cursor in calls:
    before = set(bpy.data.objects)
    scene.triplaneturbo_server, scene.triplaneturbo_prompt, scene.triplaneturbo_seed = server, prompt, seed
    scene.cursor.location = cursor
    try:
        state, said = sorted(bpy.ops.triplaneturbo.generate()), ""
    except RuntimeError as error:
        state, said = [], str(error)
    added = [o for o in bpy.data.objects if o not in before]
    images = [n for o in added for m in o.data.materials for n in m.node_tree.nodes if n.type == "TEX_IMAGE"]
    print("FOUND", json.dumps({
        "state": state, "said": said, "names": [o.name for o in added],
        "faces": [len(o.data.polygons) for o in added], "images": len(images),
        "locations": [list(o.location) for o in added],
    }))
bpy.ops.preferences.addon_disable(module="triplaneturbo_blender")
print("FOUND", json.dumps({"left": hasattr(bpy.types.Scene, "triplaneturbo_prompt")}))
"""


def blender(calls: list[tuple[str, str, int, list[float]]], folder: Path) -> list[dict[str, Any]]:
    """Call the add-on's operator in a new Blender; what it did, for each call."""
    program = shutil.which("blender")
    if program is None:
        pytest.skip("Blender is not installed (apt install blender python3-numpy)")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [program, "-b", "--factory-startup", "--python-exit-code", "1", "-P", str(script)]
        + ["--", str(ADDON), json.dumps(calls)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "BLENDER_USER_SCRIPTS": str(folder / "scripts")},
        capture_output=True, text=True, timeout=patience(180),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    return [json.loads(line.removeprefix("FOUND")) for line in lines]


def test_mesh_is_imported_at_the_cursor_and_errors_are_one_sentence(url: str, tmp_path: Path) -> None:
    cursor = [1.0, -2.0, 0.5]
    made, blank, gone, page, last = blender(
        [
            (url, "a red mushroom", 3, cursor),
            (url, " ", 0, cursor),
            ("http://127.0.0.1:9", "a cup", 0, cursor),
            ("ftp://example.com", "a cup", 0, cursor),
        ],
        tmp_path,
    )
    assert made["state"] == ["FINISHED"], made
    assert made["names"] == ["a red mushroom 3"]
    assert made["locations"] == [cursor]
    assert made["faces"][0] > 100
    assert made["images"] == 2
    for found, sentence in ((blank, "The prompt is blank"), (gone, "Cannot reach"), (page, "is no address")):
        assert found["names"] == []
        assert sentence in found["said"]
    assert last == {"left": False}


def test_errors_of_the_server_are_shown(url: str, tmp_path: Path) -> None:
    found, _ = blender([(url, "a" * 1001, 0, [0, 0, 0])], tmp_path)
    assert found["names"] == []
    assert "The prompt has 1001 characters" in found["said"]
