"""What several tests of the toy world need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from triplaneturbo.world import pool


@pytest.fixture(scope="session")
def apple_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views of apples, drawn in this process: those that `make_pool` starts import everything again."""
    folder = tmp_path_factory.mktemp("pool")
    threads = torch.get_num_threads()
    pool._draw(folder, ("apple", ""))
    torch.set_num_threads(threads)
    return folder
