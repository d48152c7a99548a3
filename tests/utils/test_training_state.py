"""States on disk: there and back, never broken, never another run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.utils.training_state import load_state, save_state

SETTINGS: dict[str, Any] = {"rate": 0.1, "size": [1.0, 2.0], "kind": "peta", "seed": None}


def state(value: float = 1.0) -> dict[str, Any]:
    return {
        "settings": SETTINGS, "step": 3, "log": {"loss": 0.5},
        "weights": {"a": torch.full((2, 3), value), "b": torch.ones(2, dtype=torch.bfloat16)},
    }  # fmt: skip


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run" / "a.pt"
    assert load_state(path, SETTINGS) is None
    save_state(path, state())
    found = load_state(path, dict(SETTINGS))
    assert found is not None
    assert {key: found[key] for key in ("settings", "step", "log")} == {
        "settings": SETTINGS, "step": 3, "log": {"loss": 0.5},
    }  # fmt: skip
    for name, value in state()["weights"].items():
        assert torch.equal(found["weights"][name], value)
        assert found["weights"][name].dtype == value.dtype
    save_state(path, state(2.0))
    again = load_state(path, SETTINGS)
    assert again is not None
    assert again["weights"]["a"][0, 0] == 2
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rate": 0.2}, "rate 0.1, not 0.2"), ({"new": 5}, "new None, not 5"), ({"size": [1.0]}, "size")],
)
def test_state_of_another_run_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    path = tmp_path / "a.pt"
    save_state(path, state())
    before = path.read_bytes()
    with pytest.raises(UserError, match=said):
        load_state(path, {**SETTINGS, **change})
    assert path.read_bytes() == before


def test_missing_setting_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "a.pt", state())
    with pytest.raises(UserError, match="kind 'peta', not None"):
        load_state(tmp_path / "a.pt", {key: value for key, value in SETTINGS.items() if key != "kind"})


@pytest.mark.parametrize("kind", ["empty", "cut", "noise", "list", "tensor", "foreign", "settings", "code"])
def test_broken_state_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.pt"
    save_state(path, state())
    data = path.read_bytes()
    if kind in ("empty", "cut", "noise"):
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "noise": bytes(range(256)) * 9}[kind])
    else:
        content: Any = {
            "list": [1, 2], "tensor": torch.ones(2), "foreign": {"weights": {}}, "settings": {"settings": 3},
            "code": {"settings": SETTINGS, "path": path},
        }[kind]  # fmt: skip
        torch.save(content, path)
    with pytest.raises(UserError, match=r"a\.pt is corrupt; delete it"):
        load_state(path, SETTINGS)
    assert path.exists()


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Cannot write"):
        save_state(tmp_path / "file" / "a.pt", state())
