"""All stages of the built-in model's training, reduced to one class and a few steps, and their outputs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.runs import newest
from triplaneturbo.models.adapters import adapter_steps
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.toyworld.__main__ import main
from triplaneturbo.toyworld.captions.combinations import held_out, seen
from triplaneturbo.toyworld.training import export as export_module
from triplaneturbo.toyworld.training import pretrain as pretrain_module
from triplaneturbo.toyworld.training.export import export
from triplaneturbo.toyworld.training.pretrain import pretrain
from triplaneturbo.toyworld.training.train import CONFIG, SMALL, make_student, read_captions, train
from triplaneturbo.utils.distributed import DistributedContext

OBJECT_CLASS = "apple"
KEYS = [(OBJECT_CLASS, "")]
SETTINGS = replace(SMALL, iterations=2, batch=1, steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, apple_views: Path, few_previews: None) -> Iterator[Path]:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    apples = tuple(spec for spec in seen() if spec.thing == OBJECT_CLASS and not spec.support)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain_module, "seen", lambda: apples)
        patch.setattr(pretrain_module, "SHOWN", 2)
        (folder / "pool").symlink_to(apple_views)
        pretrain(DistributedContext(), folder, KEYS, vae_steps=2, unet_steps=2, batch=2)
    train(DistributedContext(), folder, KEYS, list(apples), SETTINGS, math.inf)
    yield folder
    torch.set_num_threads(threads)


def test_run_writes_logs_curves_previews_and_model(folder: Path) -> None:
    for stage in ("vae", "unet", "train"):
        assert len((folder / f"{stage}.jsonl").read_text().splitlines()) == 1
        assert Image.open(folder / f"{stage}-curves.png").width > 1000
    for sheet in ("vae.png", "pictures.png", "preview.png"):
        assert Image.open(folder / sheet).getextrema()[0] != (255, 255)
    state = newest(folder)
    model = load_file(folder / "model" / "adapter.safetensors")
    bent = {name for name in model if "offset" in name}  # not learned from surface renderings
    assert len(model) == len(state["average"]) + len(bent)
    assert not model["fields.offset.4.weight"].any()
    assert not model["fields.offset.4.bias"].any()
    assert adapter_steps(folder / "model" / "adapter.safetensors") == SETTINGS.steps


def test_killed_finished_run_writes_the_model(folder: Path) -> None:
    path = folder / "model" / "adapter.safetensors"
    before = path.read_bytes()
    path.unlink()
    train(DistributedContext(), folder, KEYS, list(seen()), SETTINGS, math.inf)
    assert path.read_bytes() == before


def test_exported_model_is_small_and_generates_the_same(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "small"
    size = export(folder, target)
    assert size == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert size < export_module.LIMIT
    assert all(t.dtype == torch.float16 for t in load_file(target / "adapter.safetensors").values())
    assert [path.name for path in target.parent.iterdir()] == ["small"]
    assert adapter_steps(target / "adapter.safetensors") == SETTINGS.steps
    model, own = load_model(target), load_model(folder / "model")
    assert model.trained
    assert model.config.domain == TOYWORLD
    one, other = (Pipeline(m)("a red apple", seed=3).vertices for m in (model, own))
    assert one.amax(0).numpy() == pytest.approx(other.amax(0).numpy(), abs=0.02)


def test_failed_export_keeps_the_old_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small"
    export(folder, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    monkeypatch.setattr(export_module, "LIMIT", 2**20)
    arguments = ["export", "--folder", str(folder), "--to", str(target)]
    assert main(arguments) == 1
    assert "more than the limit of 1 MB" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(folder / "model", broken / "model")
    shutil.rmtree(broken / "model" / "unet")
    assert main(["export", "--folder", str(broken), "--to", str(target)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["export", "--folder", str(tmp_path / "none"), "--to", str(target)]) == 1
    assert "toyworld train" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "small"]


@pytest.mark.parametrize("tuning", ["peta", "lora", "full"])
def test_what_learns(folder: Path, tuning: str) -> None:
    generator = make_student(folder / "base", CONFIG, torch.device("cpu"), tuning).generator
    learns = {name for name, p in generator.named_parameters() if p.requires_grad}
    assert any("lora" in name for name in learns) == (tuning != "full")
    assert any("conv_in" in name and "lora" not in name for name in learns) == (tuning == "full")
    assert not any("offset" in name for name in learns)


def unreadable(path: Path) -> None:
    path.write_bytes(b"a red \xff")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_text("a red mushroom\na red dragon\n"), "'dragon'"),
        (lambda path: path.write_text("a mauve mushroom\n"), "'mauve'"),
        (lambda path: path.write_text(" \n\n"), "contains no captions"),
        (lambda path: path.write_text(min(held_out(), key=str).caption), "held out"),
        (unreadable, "Cannot read"),
        (lambda path: None, "Cannot read"),
    ],
)
def test_invalid_captions_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "captions.txt"
    write(path)
    run = tmp_path / "run"
    assert main(["train", "--captions", str(path), "--folder", str(run)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not run.exists()


def test_captions_in_any_wording_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a red mushroom\n\n  a mushroom that is blue \n")
    assert [spec.color for spec in read_captions(path)] == ["red", "blue"]
