"""The number of denoising steps that is stored with an adapter."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.full_size import SCHEDULER
from tests.helpers.random_generator import CONFIG, bases, stir
from triplaneturbo import Pipeline
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import (
    ADAPTER_NAME,
    adapter_tensors,
    encode_safetensors,
    load_adapter,
    read_safetensors,
    save_adapter,
)
from triplaneturbo.models.adapters import adapter_steps
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.request import Request
from triplaneturbo.toyworld.training.precision import convert_folder


def test_the_number_of_steps_is_saved_with_the_adapter(tmp_path: Path) -> None:
    generator = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), CONFIG)
    stir(generator)
    save_adapter(generator, tmp_path / "one.safetensors", steps=1)
    save_adapter(generator, tmp_path / "none.safetensors")
    save_adapter(generator, tmp_path / "released.pth", steps=1)
    assert adapter_steps(tmp_path / "one.safetensors") == 1
    assert adapter_steps(tmp_path / "none.safetensors") is None
    assert adapter_steps(tmp_path / "released.pth") is None
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "steps": "1"}
    before = {name: value.clone() for name, value in adapter_tensors(generator).items()}
    load_adapter(generator, tmp_path / "one.safetensors")
    assert all(torch.equal(before[name], value) for name, value in adapter_tensors(generator).items())


def test_equal_adapters_are_equal_files() -> None:
    """safetensors orders several entries of metadata by a hash whose seed differs between threads."""
    tensors = {"a": torch.arange(5, dtype=torch.float16), "b": torch.ones(2, 3)}
    with ThreadPoolExecutor(16) as pool:
        files = {pool.submit(encode_safetensors, tensors, 4).result() for _ in range(16)}
    assert len(files) == 1


@pytest.mark.parametrize(
    "value", ["abc", "", "0", "-1", "51", "1000000000", "1.5", " 1", "\u0663", "9" * 5000]
)
def test_an_invalid_number_of_steps_is_one_sentence(tmp_path: Path, value: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / ADAPTER_NAME, {"steps": value})
    with pytest.raises(UserError, match="Invalid number of denoising steps") as caught:
        adapter_steps(tmp_path / ADAPTER_NAME)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_missing_and_corrupt_files_have_no_number_of_steps(tmp_path: Path) -> None:
    assert adapter_steps(tmp_path / "missing.safetensors") is None
    (tmp_path / "corrupt.safetensors").write_bytes(b"\xff" * 100)
    assert adapter_steps(tmp_path / "corrupt.safetensors") is None


def test_conversion_to_another_precision_keeps_the_number_of_steps(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(3)}
    (tmp_path / "with.safetensors").write_bytes(encode_safetensors(tensors, 2))
    (tmp_path / "without.safetensors").write_bytes(encode_safetensors(tensors))
    convert_folder(tmp_path, torch.float16)
    assert adapter_steps(tmp_path / "with.safetensors") == 2
    assert adapter_steps(tmp_path / "without.safetensors") is None
    assert load_file(tmp_path / "with.safetensors")["a"].dtype == torch.float16


def test_a_model_takes_the_steps_of_its_own_adapter_and_keeps_them_when_saved(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(SMALL, model)
    (model / ADAPTER_NAME).write_bytes(encode_safetensors(read_safetensors(SMALL / ADAPTER_NAME), 1))
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    assert pipeline.settle(Request("a cup")).steps == 1
    assert pipeline.settle(Request("a cup", steps=3)).steps == 3
    saved = pipeline.save_pretrained(tmp_path / "saved")
    assert adapter_steps(saved / ADAPTER_NAME) == 1
    assert Pipeline.from_pretrained(saved, device="cpu").settle(Request("a cup")).steps == 1

    save_file(read_safetensors(SMALL / ADAPTER_NAME), model / ADAPTER_NAME, {"steps": "many"})
    with pytest.raises(UserError, match=r"'many' in the metadata of model/adapter\.safetensors"):
        Pipeline.from_pretrained(model, device="cpu")
