"""What every test may ask for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PARITY = Path(os.environ.get("TRIPLANETURBO_PARITY", ROOT.parent / "shared" / "parity"))
# Read when triplaneturbo.library is imported: adapters that somebody has made here are not the tests' own.
_LIBRARY = tempfile.TemporaryDirectory(prefix="triplaneturbo-adapters-")
os.environ["TRIPLANETURBO_ADAPTERS"] = _LIBRARY.name


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of the public implementation's numbers (`TRIPLANETURBO_PARITY`, else ../shared/parity)."""
    if not PARITY.is_dir():
        pytest.skip(f"no parity data at {PARITY}: set TRIPLANETURBO_PARITY to have this test run")
    return PARITY


@pytest.fixture(scope="session")
def facts() -> Path:
    """The folder of facts on the released weights; beside the parity data."""
    folder = ROOT.parent / "shared" / "facts"
    if not folder.is_dir():
        pytest.skip(f"no facts at {folder}")
    return folder
