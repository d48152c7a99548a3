"""The public implementation's numbers on disk: where they are, and their files as parameters of tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT

PARITY = Path(os.environ.get("TRIPLANETURBO_PARITY", ROOT.parent / "shared" / "parity"))


def each_file(*patterns: str) -> pytest.MarkDecorator:
    """Parametrize a test's `file` over the files below `PARITY` that match; skip the test if none does."""
    files = sorted(file for pattern in patterns for file in PARITY.glob(pattern))
    missing = pytest.mark.skip(reason=f"no {' or '.join(patterns)} in {PARITY}: set TRIPLANETURBO_PARITY")
    parameters = [pytest.param(file, id=f"{file.parent.name}-{file.stem}") for file in files]
    return pytest.mark.parametrize("file", parameters or [pytest.param(None, id="none", marks=missing)])


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the config.json that describes the numbers of a folder."""
    return json.loads((folder / "config.json").read_text())


def text_width(folder: Path) -> int:
    """Return the width of the text embeddings that the base of a `generator` folder takes."""
    return json.loads((folder / "base" / "unet" / "config.json").read_text())["cross_attention_dim"]
