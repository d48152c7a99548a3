"""The command refine says what it takes, and refuses what does not fit before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.errors import UserError
from triplaneturbo.models import catalog
from triplaneturbo.models.catalog import ModelFiles, find_model
from triplaneturbo.models.config import OPEN
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.refine import forecast, setup
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.teachers import stable_diffusion
from triplaneturbo.utils.units import GB


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", domain=OPEN)


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "OPEN_SIZE", 64)
    monkeypatch.setattr(setup, "OPEN_SIZE", 64)
    monkeypatch.setattr(stable_diffusion, "SIZE", 64)


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: object, **options: object) -> Pipeline:
        raise UserError("The model is being loaded.")

    monkeypatch.setattr(Pipeline, "from_pretrained", load)


def free(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    def free_memory(device: torch.device) -> int | None:
        return size

    monkeypatch.setattr(forecast, "free_memory", free_memory)
    monkeypatch.setattr(setup, "free_memory", free_memory)


def call(model: Path | str, tmp_path: Path, *arguments: str) -> int:
    return main(
        ["refine", "a red mushroom", "--model", str(model), "--device", "cpu", "-o", str(tmp_path / "a.glb"),
         *arguments]
    )  # fmt: skip


def test_too_little_memory_is_refused_before_the_model_is_loaded(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    not_loaded: None,
) -> None:  # fmt: skip
    free(monkeypatch, 1 << 20)
    assert call(model, tmp_path, "--as", "gaussians", "--path", "none") == 2
    error = capsys.readouterr().err
    assert error.startswith("This refinement needs 0.")
    assert "GB, and the device has 0.0 GB free: use a device with 0." in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_refusal_names_the_flags_that_would_help(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    not_loaded: None,
) -> None:  # fmt: skip
    free(monkeypatch, 64 * GB)
    assert call(model, tmp_path) == 2
    table = capsys.readouterr().err.splitlines()
    total = float(next(line for line in table if line.startswith("total")).split()[1])
    free(monkeypatch, int((total - 0.01) * GB))
    assert call(model, tmp_path) == 2
    assert "GB free: it would fit with --" in capsys.readouterr().err


def test_auto_uses_the_small_model_if_the_full_one_does_not_fit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str, **options: object) -> Pipeline:
        raise UserError(f"{name} is being loaded.")

    def full(on_gpu: bool, base: str) -> ModelFiles:
        return ModelFiles("full", model, "chosen")

    monkeypatch.setattr(Pipeline, "from_pretrained", load)
    monkeypatch.setattr(catalog, "_auto", full)
    free(monkeypatch, 64 * GB)
    assert call("auto", tmp_path) == 2
    assert capsys.readouterr().err.endswith("auto is being loaded.\n")
    free(monkeypatch, 1 << 20)
    assert call("auto", tmp_path) == 2
    notice, duration, end = capsys.readouterr().err.splitlines()
    assert notice.startswith("This refinement needs ")
    assert notice.endswith(" The small model is used.")
    assert (duration, end) == ("About 35 s on two cores.", "small is being loaded.")
    # The small model has no such teacher.
    assert call("auto", tmp_path, "--teachers", "mvdream,sd") == 2
    assert capsys.readouterr().err.startswith("This refinement needs ")
    assert call(model, tmp_path) == 2
    assert capsys.readouterr().err.startswith("This refinement needs ")


@pytest.mark.parametrize(("size", "planned"), [(64 * GB, True), (None, False)])
def test_memory_and_duration_are_printed_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    not_loaded: None, size: int | None, planned: bool,
) -> None:  # fmt: skip
    free(monkeypatch, size)
    assert call(model, tmp_path) == 2
    *table, duration, end = capsys.readouterr().err.splitlines()
    assert end == "The model is being loaded."
    assert duration.startswith("About ")
    assert "400 iterations of" in duration
    assert "500 steps of" in duration
    assert bool(table) == planned
    if planned:
        assert table[0].startswith("model")
        assert table[-1].startswith("The refinement takes ")
    assert call(model, tmp_path, "--quiet") == 2
    assert capsys.readouterr().err == "The model is being loaded.\n"


def test_remaining_duration_is_printed_on_resume(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    not_loaded: None,
) -> None:  # fmt: skip
    free(monkeypatch, None)
    checkpoints = tmp_path / "a.glb.refine" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "00000380.pt").touch()
    assert call(model, tmp_path, "--resume") == 2
    assert "20 iterations of" in capsys.readouterr().err
    (checkpoints / "00000500.pt").touch()
    assert call(model, tmp_path, "--resume") == 2
    error = capsys.readouterr().err
    assert "400 steps of" in error
    assert "iterations of" not in error


def test_quiet_measures_nothing_and_memory_that_ends_while_measuring_is_explained(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    not_loaded: None,
) -> None:  # fmt: skip
    def measure(*arguments: object) -> float:
        raise MemoryError

    monkeypatch.setattr(forecast, "measured_speed", measure)
    assert call(model, tmp_path, "--quiet") == 2
    assert capsys.readouterr().err == "The model is being loaded.\n"
    assert call(model, tmp_path) == 2
    assert capsys.readouterr().err.startswith("Out of memory while refining")


def test_duration_on_two_cores_is_not_that_of_a_gpu() -> None:
    small = find_model("small", False)
    for device, known in (("cpu", True), ("cuda", False)):
        expected = forecast.forecast(small, RefineOptions(), torch.device(device), "auto", generates=True)
        assert (expected.estimate.seconds is not None) == known


def test_duration_of_the_built_in_model_is_that_of_its_domain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], not_loaded: None
) -> None:
    assert call("small", tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[0] == "About 35 s on two cores."
    assert call("small", tmp_path, "--teachers", "sd") == 2
    assert capsys.readouterr().err.splitlines()[0] == "The duration is known after the first steps."


def test_loaded_model_refuses_before_it_loads_teachers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    free(monkeypatch, 1 << 20)
    with pytest.raises(UserError, match=r"This refinement needs 0\.\d GB more, and the device has 0\.0 GB"):
        pipeline.refine("a red mushroom", options=RefineOptions("texture", path="none"))
