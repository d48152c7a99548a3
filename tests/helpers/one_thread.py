"""A fixture for folders of tests that train on small tensors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: on small tensors, synchronization costs more than it saves.

    For whole modules, so that runs which fixtures of modules make have the same number of threads: results
    depend on it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
