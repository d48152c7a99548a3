"""A new mesh format is one file and one line: a dummy format, used from the registry to the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from triplaneturbo.mesh.io.registry import WRITERS

# As `MeshWriter("off", ...)` in the registry would be, and its file beside the others.
DUMMY = """
import sys
from triplaneturbo.mesh.io.registry import WRITERS, MeshWriter

def write(mesh, options):
    rows = [f"{len(mesh.vertices)} {len(mesh.faces)} 0", f"# {options.name} {options.placement.up}"]
    return "\\n".join(["OFF", *rows]).encode()

WRITERS["off"] = MeshWriter("off", ".off", "model/off", "cm", write)

from triplaneturbo.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_dummy_format_is_written_by_the_command_line(tmp_path: Path) -> None:
    target = tmp_path / "cup.off"
    quick = ["--resolution", "24", "--steps", "1", "--unwrap", "none", "--quiet", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", DUMMY, "generate", "a cup", "--model", "small", "-o", str(target), *quick],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=patience(120),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert target.read_text().startswith("OFF\n")
    assert "# cup y" in target.read_text()
    assert '"unit": "cm"' in done.stdout


def test_writers_match_their_keys_and_have_unique_suffixes() -> None:
    assert all(name == writer.name for name, writer in WRITERS.items())
    assert len({writer.suffix for writer in WRITERS.values()}) == len(WRITERS)
