"""All tests of this folder run on fake CUDA; models of the released sizes are created once for a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.fake_cuda import FakeCuda, fake_cuda


@pytest.fixture(scope="module")
def cuda() -> Iterator[FakeCuda]:
    """The mode in which "cuda:0" is a device."""
    with fake_cuda() as mode:
        yield mode
