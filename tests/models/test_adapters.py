"""The library of adapters: what is in it, and meshes made with each without loading the model anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.models import adapters
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.serving import engine as engine_module
from triplaneturbo.serving.engine import Engine
from triplaneturbo.utils.lru_cache import LRUCache

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library's folder with one adapter, "pale", whose colours are others."""
    folder = tmp_path / "adapters"
    (folder / "pale").mkdir(parents=True)
    tensors = load_file(SMALL / adapters.FILE)
    changed = {
        name: value * 0.5 if name.startswith("fields.color") else value for name, value in tensors.items()
    }
    assert any(name.startswith("fields.color") for name in tensors)
    save_file(changed, folder / "pale" / adapters.FILE)
    monkeypatch.setattr(engine_module, "adapters", lambda: adapters.adapters(folder))
    monkeypatch.setattr(engine_module, "adapter", lambda name: adapters.adapter(name, folder))
    return folder


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("small", "cpu") as engine:
        yield engine


def test_adapter_folder_is_listed(shelf: Path) -> None:
    for name in ("No", "..", "with space", "-x", "empty"):
        (shelf / name).mkdir(exist_ok=True)
    assert list(adapters.adapters(shelf)) == ["pale"]
    assert adapters.adapters(shelf / "nowhere") == {}
    with pytest.raises(UserError, match=r"There is no adapter '\.\./pale'; available: pale\."):
        adapters.adapter("../pale", shelf)
    with pytest.raises(UserError, match="there are none yet"):
        adapters.adapter("pale", shelf / "nowhere")


def test_misplaced_adapters_are_reported(shelf: Path) -> None:
    whole = (shelf / "pale" / adapters.FILE).read_bytes()
    for name in ("My LoRA", "Éclair", "猫"):
        (shelf / name).mkdir()
        (shelf / name / adapters.FILE).write_bytes(whole)
    (shelf / "loose One.safetensors").write_bytes(whole)
    (shelf / "other").mkdir()
    (shelf / "other" / "pytorch_lora_weights.safetensors").write_bytes(whole)
    (shelf / "empty").mkdir()
    (shelf / "notes.txt").write_text("mine")
    assert adapters.misplaced_adapters(shelf) == [
        "The adapter name 'My LoRA' is invalid: rename it to my-lora.",
        "The adapter 'loose One.safetensors' is not in a folder: move it to loose-one/adapter.safetensors.",
        "The adapter 'other' has no adapter.safetensors: rename its 'pytorch_lora_weights.safetensors'.",
        "The adapter name '\\xc9clair' is invalid: rename it to eclair.",
        "The adapter name '\\u732b' is invalid: rename it to mine.",
    ]
    with pytest.raises(UserError, match="rename it to my-lora"):
        adapters.adapter("My LoRA", shelf)
    for name in ("../pale", "pale/..", "..", ".", "", "a\0b", "x" * 300):
        with pytest.raises(UserError, match="There is no adapter"):
            adapters.adapter(name, shelf)
    assert adapters.misplaced_adapters(shelf / "nowhere") == []


def test_adapters_generate_different_meshes(engine: Engine, shelf: Path) -> None:
    assert engine.adapters() == ["pale"]
    before = to_glb(engine.generate("a red mushroom", **QUICK).mesh)
    pale = engine.generate("a red mushroom", adapter="pale", **QUICK)
    assert not pale.cached
    assert to_glb(pale.mesh) != before
    engine._results = LRUCache(4)
    assert to_glb(engine.generate("a red mushroom", **QUICK).mesh) == before
    with pytest.raises(UserError, match="There is no adapter 'dark'"):
        engine.generate("a red mushroom", adapter="dark", **QUICK)


def test_changed_adapter_invalidates_cached_results(engine: Engine, shelf: Path) -> None:
    first = engine.generate("a cup", adapter="pale", **QUICK)
    assert engine.generate("a cup", adapter="pale", **QUICK).cached
    shutil.copyfile(SMALL / adapters.FILE, shelf / "pale" / adapters.FILE)
    second = engine.generate("a cup", adapter="pale", **QUICK)
    assert not second.cached
    assert to_glb(second.mesh) != to_glb(first.mesh)


def test_adapters_of_other_models_are_not_listed(engine: Engine, shelf: Path) -> None:
    (shelf / "foreign").mkdir()
    save_file({"x": torch.zeros(3)}, shelf / "foreign" / adapters.FILE)
    assert engine.adapters() == ["pale"]
    with pytest.raises(UserError):
        engine.generate("a cup", adapter="foreign", **QUICK)
    assert len(engine.generate("a cup", **QUICK).mesh.faces) > 100
