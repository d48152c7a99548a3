"""Runs that start from a finished model."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, adapter_tensors
from triplaneturbo.models.catalog import SMALL as SHIPPED
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.toyworld import __main__ as main_module
from triplaneturbo.toyworld.__main__ import main
from triplaneturbo.toyworld.captions.combinations import seen
from triplaneturbo.toyworld.scene import view_cache
from triplaneturbo.toyworld.training.precision import convert_folder
from triplaneturbo.toyworld.training.start import copy_base
from triplaneturbo.toyworld.training.train import CONFIG, SMALL, make_student, train
from triplaneturbo.utils import distributed
from triplaneturbo.utils.distributed import DistributedContext

KEYS = [("apple", "")]


@pytest.mark.usefixtures("few_previews")
def test_training_starts_from_the_shipped_weights(tmp_path: Path, apple_views: Path) -> None:
    mark = copy_base(SHIPPED, tmp_path)
    (tmp_path / "pool").symlink_to(apple_views)
    apples = [spec for spec in seen() if spec.thing == "apple" and not spec.support]
    settings = replace(SMALL, iterations=1, batch=1, learning_rate=1e-9, start=mark, schedule_offset=1.0)
    start = SHIPPED / ADAPTER_NAME
    train(DistributedContext(), tmp_path, KEYS, apples, settings, math.inf, start)
    before, after = load_file(start), load_file(tmp_path / "model" / ADAPTER_NAME)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value.float(), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="started with start"):
        train(
            DistributedContext(), tmp_path, KEYS, apples, replace(settings, start="another"), math.inf, start
        )


@pytest.mark.usefixtures("few_previews")
def test_a_model_gets_variants_and_keeps_them(
    tmp_path: Path, apple_views: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a red apple\n")
    monkeypatch.setattr(main_module, "_all_keys", lambda: KEYS)

    def trained(start: Path, name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pool").symlink_to(apple_views)
        arguments = ["train", "--from", start, "--folder", folder, "--captions", captions, *options]
        # Two iterations, as SOAP only gathers statistics in the first.
        assert main([*map(str, arguments), "--iterations", "2", "--prompts", "1"]) == 0
        return folder / "model"

    first = trained(SHIPPED, "first", "--variants", "2")
    assert GeneratorConfig.load(first).variants == 2
    assert load_file(first / ADAPTER_NAME)["variants"].any()
    second = trained(first, "second")
    assert GeneratorConfig.load(second).variants == 2
    assert GeneratorConfig.load(trained(SHIPPED, "third")).variants == 1


def test_base_is_copied_once_in_full_precision(tmp_path: Path) -> None:
    mark = copy_base(SHIPPED, tmp_path)
    student = make_student(tmp_path / "base", CONFIG, torch.device("cpu"))
    assert {p.dtype for p in student.generator.unet.parameters()} == {torch.float32}
    assert set(adapter_tensors(student.generator)) == set(load_file(SHIPPED / ADAPTER_NAME))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert copy_base(SHIPPED, tmp_path) == mark
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


@pytest.mark.parametrize(
    ("options", "rate"),
    [([], SMALL.learning_rate / 2), (["--rate", "3e-4"], 3e-4)],
)
def test_default_learning_rate_is_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], rate: float
) -> None:
    told = []
    monkeypatch.setattr(view_cache, "make_view_cache", lambda *_: None)
    monkeypatch.setattr(distributed, "run", lambda _train, arguments, *_: told.append(arguments[3]))
    assert main(["train", "--from", str(SHIPPED), "--folder", str(tmp_path), *options]) == 0
    assert [(settings.learning_rate, settings.schedule_offset) for settings in told] == [(rate, 1.0)]


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "1e9", "much"])
def test_invalid_learning_rates_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: str
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--from", str(SHIPPED), "--folder", str(tmp_path), f"--rate={rate}"])
    assert "--rate: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def another_base(folder: Path) -> None:
    copy_base(SHIPPED, folder)
    path = next((folder / "base" / "unet").glob("*.safetensors"))
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def test_other_base_is_refused_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    another_base(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["train", "--from", str(SHIPPED), "--folder", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "has another base" in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: (model / ADAPTER_NAME).unlink(), "has no adapter"),
        (lambda model: shutil.rmtree(model / "vae"), "has no vae"),
        (lambda model: shutil.rmtree(model), "contains no model"),
        (lambda model: next((model / "unet").glob("*.safetensors")).write_bytes(b"half"), "is corrupt"),
        (lambda model: replace(CONFIG, mlp_width=64).save(model), "other sizes"),
    ],
)
def test_invalid_model_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil, said: str
) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(SHIPPED, model)
    spoil(model)
    assert main(["train", "--from", str(model), "--folder", str(run)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not run.exists() or not list(run.iterdir())


def test_only_floating_point_tensors_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "part" / "weights.safetensors"
    path.parent.mkdir()
    save_file({"weight": torch.tensor([0.5, 1.25]), "ids": torch.tensor([3, 70000])}, path)
    convert_folder(tmp_path, torch.float16)
    half = load_file(path)
    assert half["weight"].dtype == torch.float16
    assert half["ids"].tolist() == [3, 70000]
    convert_folder(tmp_path, torch.float32)
    assert load_file(path)["weight"].tolist() == [0.5, 1.25]
