"""Every tensor of the public implementation's small models, with the adapters live and merged."""

from __future__ import annotations

import pytest

from tests.helpers.parity_cases import case_files, differences
from tests.helpers.parity_files import PARITY

CASES = case_files(PARITY)


@pytest.mark.parametrize("merged", [False, True], ids=["live", "merged"])
@pytest.mark.parametrize("file", CASES or [None], ids=lambda file: file.stem if file else "none")
def test_every_tensor_matches_the_public_implementation(file, merged, parity) -> None:
    if file is None:
        pytest.skip(f"no case_*.safetensors beside an adapter.pth below {parity}/generator")
    found = differences(file, merged)
    assert {name: value for name, value in found.items() if not value <= 1e-4} == {}
