"""Files in, files out: the released layout, our own, conversions, and files that do not belong."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.helpers import full_size
from tests.helpers.paths import ROOT
from tests.helpers.tiny import tiny_model
from triplaneturbo.errors import UserError
from triplaneturbo.models import peta
from triplaneturbo.models.adapter import adapter_tensors, load_adapter, save_adapter
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.released_checkpoint import (
    check_shape,
    from_released,
    infer_config,
    read_released,
    released_key_map,
    to_released,
)
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import convert_released, load_generator, load_model

SMALL = ROOT / "checkpoints" / "small"


@pytest.fixture
def released(parity: Path) -> Path:
    """The folder of a small released adapter (adapter.pth) with its base (base/)."""
    return parity / "generator"


@pytest.fixture
def whole(released: Path, tmp_path: Path) -> Path:
    """A whole model in our own layout: converted adapter, base and text encoder."""
    folder = tmp_path / "model"
    convert_released(released / "adapter.pth", released / "base", folder)
    for part in ("unet", "vae", "scheduler"):
        shutil.copytree(released / "base" / part, folder / part, copy_function=shutil.copy)
    small = load_model(SMALL)
    small.text.tokenizer.save_pretrained(folder / "tokenizer")
    small.text.model.save_pretrained(folder / "text_encoder")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_every_released_tensor_is_mapped_at_full_size(facts: Path) -> None:
    manifest = json.loads((facts / "released_checkpoint_manifest.json").read_text())["keys"]
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**full_size.UNET), AutoencoderKL(**full_size.VAE)
        layers = peta.adapted_layers(unet, vae.decoder)
        generator = TriplaneGenerator(unet, vae, scheduler=None, config=GeneratorConfig())
    assert layers == peta.adapted_layers(generator.unet, generator.vae.decoder)
    tensors = adapter_tensors(generator)
    places = released_key_map(layers, generator.config)
    assert set(places) == set(manifest) - {"geometry.bbox"}
    assert len(manifest) == 1110
    filled: dict[str, set] = {name: set() for name in tensors}
    for key, place in places.items():
        shape = tensors[place.name].shape
        wanted = shape if place.plane is None else shape[1:]
        check_shape(key, torch.Size(manifest[key]["shape"]), wanted, "manifest")
        filled[place.name].add(place.plane)
    assert all(planes in ({None}, set(range(6))) for planes in filled.values())
    assert sum(value.numel() for value in tensors.values()) == 22_684_160


def test_conversion_round_trip_is_exact(released: Path, tmp_path: Path) -> None:
    state = read_released(released / "adapter.pth")
    convert_released(released / "adapter.pth", released / "base", tmp_path / "ours")
    config = GeneratorConfig.load(tmp_path / "ours")
    assert config == infer_config(state)
    generator, trained = load_generator(tmp_path / "ours", config, base=released / "base")
    assert trained
    save_adapter(generator, tmp_path / "back.pth")
    back = read_released(tmp_path / "back.pth")
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_complete_folder_loads_and_generates(whole: Path) -> None:
    model = load_model(whole)
    assert model.trained
    text = torch.randn(1, 77, model.generator.unet.config.cross_attention_dim)
    noise = torch.randn(1, 6, 4, 8, 8)
    with torch.no_grad():
        *_, clean = model.generator.denoise(noise, text, 2)
        assert torch.isfinite(model.generator.decode(clean)).all()
    merged = [layer for layer in model.generator.adapter_layers() if layer.merged]
    assert len(merged) > 100


@pytest.fixture(params=["trained", "drawn"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The built-in model, and one whose weights are drawn from a seed."""
    return SMALL if request.param == "trained" else tiny_model(tmp_path / "drawn")


def test_loading_is_deterministic(folder: Path) -> None:
    first, again = load_model(folder), load_model(folder)
    assert torch.equal(first.text.embed(["a duck"]), again.text.embed(["a duck"]))
    for one, two in zip(first.generator.parameters(), again.generator.parameters(), strict=True):
        assert torch.equal(one, two)


def test_loading_does_not_change_the_global_rng(folder: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    load_model(folder)
    assert torch.equal(torch.rand(3), wanted)


def test_any_prompt_can_be_embedded() -> None:
    text = load_model(SMALL).text
    embeds = text.embed(["", "a red mushroom", "蘑菇 🍄 \u202e tfel", "x" * 5000])
    assert embeds.shape[:2] == (4, 77)
    assert torch.isfinite(embeds).all()
    assert text.truncated_text("a red mushroom") == ""
    assert text.truncated_text("word " * 100) != ""


def _refused(call, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_adapter_of_another_base_is_refused(released: Path) -> None:
    config = GeneratorConfig.load(SMALL)
    generator, _ = load_generator(SMALL, config)
    _refused(lambda: load_adapter(generator, released / "adapter.pth"), "adapter.pth", "does not match")


def test_base_with_another_text_encoder_is_refused(released: Path) -> None:
    """As Stable Diffusion 1.5 is to 2.1-base: the same layers, texts of another width."""
    sizes = json.loads((released / "base" / "unet" / "config.json").read_text())
    unet = UNet2DConditionModel.from_config({**sizes, "cross_attention_dim": 48})
    vae = AutoencoderKL.from_config(json.loads((released / "base" / "vae" / "config.json").read_text()))
    config = infer_config(read_released(released / "adapter.pth"))
    generator = TriplaneGenerator(unet, vae, DDIMScheduler(**full_size.SCHEDULER), config)
    _refused(lambda: load_adapter(generator, released / "adapter.pth"), "needs Stable Diffusion 2.1-base")


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "box"])
def test_modified_file_is_refused(released: Path, tmp_path: Path, change: str) -> None:
    state = read_released(released / "adapter.pth")
    key = "geometry.space_generator.peft_layers.layers.33.up.weight"
    if change == "missing":
        del state[key]
    elif change == "unknown":
        state["geometry.other"] = torch.zeros(1)
    elif change == "shape":
        state[key] = state[key][:-1]
    else:
        state["geometry.bbox"] = state["geometry.bbox"] * 2
    torch.save({"state_dict": state}, tmp_path / "changed.pth")
    generator, _ = load_generator(
        tmp_path, infer_config(state), base=released / "base", adapter=released / "adapter.pth"
    )
    before = {name: value.clone() for name, value in adapter_tensors(generator).items()}
    _refused(lambda: load_adapter(generator, tmp_path / "changed.pth"), "changed.pth")
    assert all(torch.equal(before[name], value) for name, value in adapter_tensors(generator).items())


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/triplaneturbo-was-here"),))


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "pickle", "list", "absent"])
def test_foreign_file_is_refused_and_not_executed(released: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "foreign.pth"
    data = (released / "adapter.pth").read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": _Trap()}, protocol=2))
    elif kind == "list":
        torch.save([1, 2], path)
    _refused(lambda: read_released(path), "foreign.pth")
    assert not Path("/tmp/triplaneturbo-was-here").exists()


def test_broken_text_parts_are_refused(whole: Path) -> None:
    weights = whole / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "final_layer_norm" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, weights, {"format": "pt"})
    _refused(lambda: load_model(whole), "text_encoder", "final_layer_norm")
    save_file(tensors, weights, {"format": "pt"})
    for file in (whole / "tokenizer").iterdir():
        file.unlink()
    _refused(lambda: load_model(whole), "tokenizer", "vocabulary")


def test_missing_adapter_is_reported(tmp_path: Path) -> None:
    _refused(lambda: load_model(SMALL, adapter=tmp_path / "typo.safetensors"), "typo.safetensors")


def test_embeddings_can_be_used_in_training() -> None:
    embeds = load_model(SMALL).text.embed(["a duck"])
    weight = torch.ones(embeds.shape[-1], requires_grad=True)
    (embeds @ weight).sum().backward()
    assert weight.grad is not None


def test_broken_folder_is_refused(whole: Path) -> None:
    adapter = whole / "adapter.safetensors"
    kept = adapter.read_bytes()
    adapter.write_bytes(kept[:1000])
    _refused(lambda: load_model(whole), "adapter.safetensors", "broken")
    adapter.unlink()
    _refused(lambda: load_model(whole), "adapter.safetensors")
    adapter.write_bytes(kept)
    unet = whole / "unet" / "diffusion_pytorch_model.safetensors"
    data = unet.read_bytes()
    unet.write_bytes(data[: len(data) // 2])
    _refused(lambda: load_model(whole), "unet", "broken")
    unet.write_bytes(data)
    tensors = load_file(unet)
    tensors.pop("conv_in.weight")
    save_file(tensors, unet, metadata={"format": "pt"})
    _refused(lambda: load_model(whole), "conv_in.weight")
    shutil.rmtree(whole / "unet")
    _refused(lambda: load_model(whole), "unet missing")
    (whole / "triplaneturbo.json").write_text("{")
    _refused(lambda: load_model(whole), "triplaneturbo.json")
    (whole / "triplaneturbo.json").unlink()
    _refused(lambda: load_model(whole), "triplaneturbo.json not found")
    _refused(lambda: load_model(whole / "nowhere"), "nowhere")


@pytest.mark.parametrize(
    "values",
    [
        {"conv_rank": 0},
        {"plane_rank": "16"},
        {"mlp_activation": "tanh"},
        {"mlp_bias": 1},
        {"world": 1},
        {"untrained_seed": "x"},
    ],
)
def test_invalid_config_is_refused(tmp_path: Path, values: dict) -> None:
    (tmp_path / "triplaneturbo.json").write_text(json.dumps(values))
    _refused(lambda: GeneratorConfig.load(tmp_path), "triplaneturbo.json", next(iter(values)))


def test_keys_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "triplaneturbo.json").write_text(json.dumps({"vae_rank": 4, "from_the_future": True}))
    assert GeneratorConfig.load(tmp_path) == GeneratorConfig(vae_rank=4)


def test_released_layout_separates_six_planes(released: Path) -> None:
    state = read_released(released / "adapter.pth")
    config = infer_config(state)
    generator, _ = load_generator(released, config, base=released / "base", adapter=released / "adapter.pth")
    places = released_key_map(peta.adapted_layers(generator.unet, generator.vae.decoder), config)
    tensors = adapter_tensors(generator)
    again = from_released(to_released(tensors, places), places, {n: t.shape for n, t in tensors.items()}, "x")
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
