"""The public API: lazy imports, loading and saving models by name, and saving meshes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import triplaneturbo
from tests.helpers.tiny import tiny_model
from triplaneturbo import Mesh, Pipeline, Placement, UserError
from triplaneturbo import pipeline as pipeline_module
from triplaneturbo.mesh.io import encode
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.models import catalog
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.catalog import SMALL, find_model
from triplaneturbo.models.config import CONFIG_NAME

QUICK = {"steps": 1, "resolution": 24, "texture_size": 512}


@pytest.fixture(scope="module")
def small() -> Pipeline:
    return Pipeline.from_pretrained("small", device="cpu")


@pytest.fixture(scope="module")
def mushroom(small: Pipeline) -> Mesh:
    return small("a red mushroom", seed=1, **QUICK)


@torch.no_grad()
def planes(pipeline: Pipeline) -> torch.Tensor:
    generator = pipeline.model.generator
    noise = generator.draw_latents(1, torch.Generator().manual_seed(0))
    *_, latents = generator.denoise(noise, pipeline.embed("a red mushroom"), 1)
    return generator.decode(latents)


def test_every_public_name_exists() -> None:
    assert set(triplaneturbo.__all__) == {
        "Mesh",
        "Pipeline",
        "Placement",
        "Request",
        "UserError",
        "__version__",
    }
    for name in triplaneturbo.__all__:
        assert getattr(triplaneturbo, name) is not None
        assert name in dir(triplaneturbo)
    with pytest.raises(AttributeError, match="has no attribute 'Generator'"):
        getattr(triplaneturbo, "Generator")  # noqa: B009


def test_saved_model_gives_the_same_mesh(small: Pipeline, mushroom: Mesh, tmp_path: Path) -> None:
    folder = small.save_pretrained(tmp_path / "new" / "model")
    again = Pipeline.from_pretrained(folder, device="cpu")
    assert torch.equal(planes(again), planes(small))
    assert encode(again("a red mushroom", seed=1, **QUICK), "glb") == encode(mushroom, "glb")
    files = {path.relative_to(SMALL): path.read_bytes() for path in SMALL.rglob("*.safetensors")}
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")} == files
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saved_meshes_tell_how_they_were_generated(mushroom: Mesh, tmp_path: Path) -> None:
    path = mushroom.save(tmp_path / "a.glb", size=0.25, pivot="ground")
    read = read_metadata(path)
    assert (read.request.prompt, read.request.seed, read.model) == ("a red mushroom", 1, "small")
    assert {name: getattr(read.request, name) for name in QUICK} == QUICK
    assert read.placement == Placement(0.25, pivot="ground")
    plain = mushroom.save(tmp_path / "b.glb", metadata=False)
    assert plain.read_bytes() == encode(mushroom, "glb")
    with pytest.raises(UserError, match="contains no settings"):
        read_metadata(plain)
    given = mushroom.replace(metadata=None).save(tmp_path / "c.glb")
    assert given.read_bytes() == plain.read_bytes()


def test_half_precision_model_with_separate_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(SMALL, base)
    adapter.mkdir()
    for name in (CONFIG_NAME, ADAPTER_NAME):
        (base / name).rename(adapter / name)
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle, which is never read")
    settings = {"device": "cpu", "precision": "bfloat16"}
    first = Pipeline.from_pretrained(adapter, base=base, **settings)

    folder = tmp_path / "saved"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"of another model")
    (folder / "README.md").write_text("mine")
    first.save_pretrained(folder)
    second = Pipeline.from_pretrained(folder, low_memory=True, **settings)
    assert second.model.generator.dtype == torch.bfloat16
    assert second.low_memory
    assert torch.equal(planes(second), planes(first))
    assert (folder / "README.md").read_text() == "mine"
    assert sorted(path.name for path in (folder / "unet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
    ]


def test_untrained_model_is_saved_without_weights(tmp_path: Path) -> None:
    first = Pipeline.from_pretrained(tiny_model(tmp_path / "tiny"), device="cpu")
    folder = first.save_pretrained(tmp_path / "saved")
    assert not list(folder.rglob("*.safetensors"))
    assert torch.equal(planes(Pipeline.from_pretrained(folder, device="cpu")), planes(first))


def test_model_is_not_saved_over_a_file(small: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot save the model in"):
        small.save_pretrained(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": "nothing"}, "There is no model"),
        ({"device": "warp"}, "There is no device"),
        ({"precision": "int3"}, "precision should be"),
        ({"name": str(SMALL.parent)}, CONFIG_NAME),
    ],
)
def test_invalid_arguments_are_user_errors(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Pipeline.from_pretrained(**{"name": "small", "device": "cpu", **settings})


def test_fallback_to_the_small_model_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = catalog.ModelFiles("full", tmp_path, "its folder is there")

    def find(name: str, on_gpu: bool, base: str = "") -> catalog.ModelFiles:
        return broken if name == "auto" else find_model(name, on_gpu, base)

    monkeypatch.setattr(pipeline_module, "find_model", find)
    with pytest.warns(UserWarning, match="The small model is used"):
        assert Pipeline.from_pretrained(device="cpu").model.folder == SMALL


@pytest.mark.parametrize(("name", "format"), [("m.glb", "glb"), ("m.zip", "obj"), ("M.STL", "stl")])
def test_mesh_format_follows_the_suffix(mushroom: Mesh, tmp_path: Path, name: str, format: str) -> None:
    path = mushroom.save(tmp_path / name, unit="cm", size=0.3, up="z", pivot="ground")
    placement = Placement(size=0.3, up="z", pivot="ground", unit="cm")
    assert mushroom.metadata is not None
    metadata = replace(mushroom.metadata, placement=placement)
    assert path.read_bytes() == encode(mushroom, format, path.stem, placement, metadata=metadata)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("m.fbx", {}),
        ("m.obj", {}),
        ("m", {}),
        ("m.glb", {"unit": "mile"}),
        ("m.glb", {"up": "x"}),
        ("m.glb", {"pivot": "left"}),
        ("m.glb", {"size": -1}),
    ],
)
def test_invalid_mesh_files_are_refused(mushroom: Mesh, tmp_path: Path, name: str, settings: dict) -> None:
    with pytest.raises(UserError):
        mushroom.save(tmp_path / name, **settings)
    assert not list(tmp_path.iterdir())


def test_mesh_save_matches_the_command_line(mushroom: Mesh, tmp_path: Path) -> None:
    data = mushroom.save(str(tmp_path / "m.glb")).read_bytes()
    assert data == encode(mushroom, "glb", metadata=mushroom.metadata)
    length = int.from_bytes(data[12:16], "little")
    assert json.loads(data[20 : 20 + length])["asset"]["version"] == "2.0"
