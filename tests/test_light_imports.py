"""The package, its lists, help and bad input load nothing heavy, and the page loads no torch.

All of it runs in one process (tests/helpers/light_steps.py), since starting one for each costs seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.light_steps import COMMANDS, WITHOUT_TORCH
from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from triplaneturbo import __version__


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each step returned, printed and loaded."""
    prompts: Path = tmp_path_factory.mktemp("light") / "mine.txt"
    prompts.write_text("a red cup\n")
    command = [sys.executable, "-m", "tests.helpers.light_steps", str(prompts)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(60))
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_package_imports_nothing_heavy(done: dict[str, dict[str, Any]]) -> None:
    assert done["package"]["already"] == []  # else the next line would prove nothing
    assert done["package"]["heavy"] == []
    assert "torch" not in done["names"]["heavy"]


def test_listing_the_formats_imports_no_writer(done: dict[str, dict[str, Any]]) -> None:
    assert not {"torch", "trimesh", "pygltflib", "pxr"} & {*done["formats"]["heavy"]}


def test_listing_runs_loads_nothing_heavy(done: dict[str, dict[str, Any]]) -> None:
    assert not {"torch", "numpy"} & {*done["runs"]["heavy"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version_load_nothing_heavy(done: dict[str, dict[str, Any]], name: str) -> None:
    step = done[name]
    assert step["code"] == 0
    assert not {"torch", "numpy", "gradio", "diffusers", "huggingface_hub"} & {*step["heavy"]}
    expected = f"triplaneturbo {__version__}\n" if name == "--version" else "usage: python -m triplaneturbo"
    assert step["out"].startswith(expected)


def test_bad_input_loads_nothing_heavy(done: dict[str, dict[str, Any]]) -> None:
    assert done["bad input"]["code"] == 2
    assert not {"torch", "numpy", "diffusers"} & {*done["bad input"]["heavy"]}


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_lists_of_words_and_quick_checks_need_neither_torch_nor_numba(
    done: dict[str, dict[str, Any]], name: str
) -> None:
    assert "penguin" in done[name]["out"] or "free disk" in done[name]["out"]
    assert not {"torch", "numba", "gradio", "diffusers"} & {*done[name]["heavy"]}


def test_the_engine_imports_nothing_of_training_or_evaluation() -> None:
    code = "import sys, triplaneturbo.serving.engine; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=patience(120)
    )
    loaded = set(ended.stdout.split())
    assert "diffusers" in loaded  # else the next line would prove nothing
    assert not {"matplotlib", "open_clip", "trimesh", "triplaneturbo.distill.prd"} & loaded


def test_page_imports_no_torch(done: dict[str, dict[str, Any]]) -> None:
    assert "triplaneturbo.ui.generate.controls" in done["page"]["out"].split()
