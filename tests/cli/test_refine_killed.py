"""A refinement that is killed with SIGKILL resumes to the same bytes, with all its pictures."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.distill.ptd import Refiner

# Runs the command with a checkpoint after every second step, and is killed before it has written a picture.
_KILLED = """
import os, signal, sys
from triplaneturbo.__main__ import main
from triplaneturbo.cli import refine
from triplaneturbo.distill.ptd import Refiner

at = int(sys.argv.pop(1))
Refiner.__init__.__kwdefaults__["save_every"] = 2
write = refine._write_picture

def killed(refiner, folder):
    if refiner.steps == at:
        os.kill(os.getpid(), signal.SIGKILL)
    write(refiner, folder)

refine._write_picture = killed
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("at", [2, 3])  # right after a checkpoint, and with a step that has to be repeated
def test_a_killed_refinement_resumes_to_the_same_bytes_with_all_pictures(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Refiner.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Refiner.__init__.__kwdefaults__, "save_every", 2)
    model = tiny_model(tmp_path / "tiny")

    def arguments(name: str) -> list[str]:
        return [
            "refine", "a red mushroom", "--model", str(model), "--device", "cpu", "--steps", "4", "--quiet",
            "--texture-size", "512", "-o", str(tmp_path / f"{name}.glb"), "--pictures", str(tmp_path / name),
            "--every", "1",
        ]  # fmt: skip

    assert main(arguments("whole")) == 0
    command = [sys.executable, "-c", _KILLED, str(at), *arguments("killed")]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.glb").exists()
    assert len(list((tmp_path / "killed").iterdir())) == at
    assert main([*arguments("killed"), "--resume"]) == 0
    assert (tmp_path / "killed.glb").read_bytes() == (tmp_path / "whole.glb").read_bytes()
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    ]
    assert sorted(pictures[0]) == [f"step-0000{step}.png" for step in range(5)]
    assert pictures[1] == pictures[0]
    assert len(set(pictures[0].values())) == 5
    assert not (tmp_path / "killed.glb.refine").exists()
