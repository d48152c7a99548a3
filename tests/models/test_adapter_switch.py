"""Another adapter in a loaded model equals a model loaded with it, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, save_adapter
from triplaneturbo.models.adapter_switch import AdapterSwitch, fits
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.full_finetune import base_parameters
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import load_base, load_generator, load_model


@pytest.fixture(scope="module")
def shipped() -> TriplaneGenerator:
    """The built-in model's generator, only to be compared with."""
    return load_model(SMALL).generator


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A model's folder with an adapter unlike the built-in one."""
    folder = Path(shutil.copytree(SMALL, tmp_path / "other"))
    draw = torch.Generator().manual_seed(0)
    tensors = load_file(SMALL / ADAPTER_NAME)
    changed = {
        name: value * (1 + 0.3 * torch.randn(value.shape, generator=draw))
        if value.is_floating_point()
        else value
        for name, value in tensors.items()
    }
    save_file(changed, folder / ADAPTER_NAME)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_switching_adapters_and_back(other: Path, dtype: torch.dtype) -> None:
    model = load_model(SMALL, dtype=dtype)
    switch = AdapterSwitch(model, SMALL)
    for adapter, like in ((other / ADAPTER_NAME, other), (None, SMALL), (other / ADAPTER_NAME, other)):
        switch.use(adapter)
        wanted = load_model(like, dtype=dtype).generator.state_dict()
        found = model.generator.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())
        assert all(value.dtype == wanted[name].dtype for name, value in found.items())


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A model's folder with another base, and `whole.safetensors`, in which an adapter brings that base."""
    folder = Path(shutil.copytree(SMALL, tmp_path / "tuned"))
    generator, _ = load_generator(SMALL, GeneratorConfig.load(SMALL))
    draw = torch.Generator().manual_seed(1)
    changed = {
        name: parameter.data.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=draw))
        for name, parameter in base_parameters(generator).items()
    }
    save_adapter(generator, folder / "whole.safetensors", include_base=True)
    unet, vae = load_base(SMALL)
    rooms = {"unet": unet, "decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    for room, model in rooms.items():
        names = {name: f"{room}.{name}" for name in model.state_dict()}
        model.load_state_dict({name: changed.pop(full) for name, full in names.items()})
    assert not changed
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    return folder


def test_adapter_with_base_weights_is_switched_completely(tuned: Path, other: Path) -> None:
    model = load_model(SMALL, dtype=torch.float16)
    switch = AdapterSwitch(model, SMALL)
    whole, another = tuned / "whole.safetensors", other / ADAPTER_NAME
    assert fits(model, whole)
    for adapter, like in ((another, other), (whole, tuned), (another, other), (whole, tuned), (None, SMALL)):
        switch.use(adapter)
        wanted = load_model(like, dtype=torch.float16).generator.state_dict()
        found = model.generator.state_dict()
        assert found.keys() == wanted.keys()
        assert [name for name, value in found.items() if not torch.equal(value, wanted[name])] == []


def test_incomplete_base_weights_are_refused(tuned: Path, tmp_path: Path) -> None:
    model = load_model(SMALL)
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    tensors = load_file(tuned / "whole.safetensors")
    name = "base.unet.conv_in.weight"
    save_file({**tensors, name: tensors[name][:1].contiguous()}, tmp_path / "narrow.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "half.safetensors")
    for file in ("narrow", "half"):
        with pytest.raises(UserError, match=r"unet\.conv_in\.weight"):
            AdapterSwitch(model, SMALL).use(tmp_path / f"{file}.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())
    with pytest.raises(UserError, match="comes from full fine-tuning and cannot be used as a starting"):
        load_model(SMALL, adapter=tuned / "whole.safetensors")


def test_incompatible_adapter_changes_nothing(other: Path, tmp_path: Path) -> None:
    model = load_model(SMALL)
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    switch = AdapterSwitch(model, SMALL)
    tensors = load_file(other / ADAPTER_NAME)
    name, value = next(iter(tensors.items()))
    save_file({**tensors, name: value[..., :1].contiguous()}, tmp_path / "narrow.safetensors")
    up = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, up: tensors[up][:, :1].contiguous()}, tmp_path / "odd.safetensors")  # half a pair
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for file in ("narrow", "odd", "broken", "missing"):
        path = tmp_path / f"{file}.safetensors"
        assert not fits(model, path)
        with pytest.raises(UserError):
            switch.use(path)
    assert fits(model, other / ADAPTER_NAME)
    assert all(torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())


def test_changed_adapter_file_is_loaded_again(other: Path, shipped: TriplaneGenerator) -> None:
    model = load_model(SMALL)
    switch = AdapterSwitch(model, SMALL)
    switch.use(other / ADAPTER_NAME)
    shutil.copyfile(SMALL / ADAPTER_NAME, other / ADAPTER_NAME)
    switch.use(other / ADAPTER_NAME)
    wanted = shipped.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.generator.state_dict().items())


def test_failed_switch_is_repaired(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(SMALL, dtype=torch.float16)
    switch = AdapterSwitch(model, SMALL)
    with monkeypatch.context() as patch:

        def fail() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        patch.setattr(model.generator, "merge", fail)
        with pytest.raises(torch.OutOfMemoryError):
            switch.use(other / ADAPTER_NAME)
    assert model.generator.dtype == torch.float16
    switch.use(None)
    wanted = load_model(SMALL, dtype=torch.float16).generator.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.generator.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"plane_rank": 4, "cross_rank": 8, "vae_rank": 4, "conv_rank": 2},
        {"plane_rank": 32, "cross_rank": 32, "vae_rank": 32, "conv_rank": 32},
        {"plane_lora": False},  # basic LoRA
        {"plane_lora": False, "plane_rank": 8},
    ],
)
def test_other_ranks_and_plain_lora_match_their_own_model(
    tmp_path: Path, shipped: TriplaneGenerator, change: dict
) -> None:
    own = Path(shutil.copytree(SMALL, tmp_path / "own"))
    config = replace(GeneratorConfig.load(SMALL), **change)
    config.save(own)
    torch.manual_seed(5)
    generator, _ = load_generator(own, config, new=True)
    for name, value in generator.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    save_adapter(generator, own / ADAPTER_NAME)

    model = load_model(SMALL)
    assert fits(model, own / ADAPTER_NAME)
    switch = AdapterSwitch(model, SMALL)
    switch.use(own / ADAPTER_NAME)
    noise, words = torch.randn(1, 6, 4, 16, 16), model.text.embed(["a red cup"])
    planes = []
    for one in (model, load_model(own)):
        with torch.no_grad():
            planes.append(one.generator.decode(one.generator.predict(noise, 749, words)))
    torch.testing.assert_close(planes[0], planes[1], rtol=0, atol=2e-4 * float(planes[1].abs().max()))
    with torch.no_grad():
        assert float((shipped.decode(shipped.predict(noise, 749, words)) - planes[1]).abs().max()) > 1e-2
    switch.use(None)
    wanted = shipped.state_dict()
    found = model.generator.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
