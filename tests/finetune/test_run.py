"""A run's folder: started, resumed after interruptions, saved to the library, discarded."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import toy
from tests.helpers.paths import ROOT
from tests.helpers.training_setups import CONFIG, MODEL_FILES, setup_toy
from triplaneturbo.domains.domain import PRESETS, Domain
from triplaneturbo.domains.open_vocabulary import OPEN_VOCABULARY
from triplaneturbo.domains.registry import DOMAINS
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import runner
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.domain_training import training_of
from triplaneturbo.finetune.run import Report, Run, runs
from triplaneturbo.finetune.runner import train
from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.adapters import adapter_steps
from triplaneturbo.models.full_finetune import base_parameters, split_base_tensors

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _toys() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "prepare", setup_toy)
        yield


def finish(run: Run) -> list[Report]:
    return list(train(run, MODEL_FILES, CPU))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of `CONFIG`, to be read or copied."""
    run = Run.begin(tmp_path_factory.mktemp("finished") / "mine", CONFIG)
    finish(run)
    return run


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `CONFIG` that was closed when its second iteration had ended, to be copied."""
    run = Run.begin(tmp_path_factory.mktemp("halfway") / "mine", CONFIG)
    training = train(run, MODEL_FILES, CPU)
    while next(training).iteration < 2:
        pass
    training.close()
    return run


def copied(run: Run, folder: Path) -> Run:
    return Run.open(shutil.copytree(run.folder, folder / "mine"))


def test_complete_run(tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "runs" / "mine", replace(CONFIG, held_out=("a flat blue box",)))
    assert run.status["state"] == "ready"
    reports = finish(run)
    assert [report.iteration for report in reports if report.losses] == [1, 2, 3, 4]
    assert reports[0].doing == "rendering the toys"
    assert {report.doing for report in reports if report.iteration == 4} > {"evaluating a flat blue box"}
    learning = [report for report in reports if report.losses]
    assert all(report.seconds > 0 for report in learning)
    assert learning[0].left > 0 == learning[-1].left
    assert {"rgb volume", "geometry volume", "eikonal", "gradient"} <= set(learning[0].losses)
    assert run.status | {"seconds": 0} == {
        "state": "finished", "iteration": 4, "iterations": 4, "sentence": "", "seconds": 0, "left": 0.0,
        "doing": "",
    }  # fmt: skip
    assert [entry["iteration"] for entry in run.log()] == [1, 2, 3, 4]
    assert run.log()[2]["eikonal"] == pytest.approx(learning[2].losses["eikonal"], abs=1e-6)
    assert [path.stem for path in run.previews()] == ["0000000", "0000002", "0000004"]
    assert {report.preview for report in reports if report.preview} == set(run.previews())
    assert Image.open(run.previews()[0]).width > 200

    library = tmp_path / "library"
    path = run.keep(library)
    assert path == library / "mine" / "adapter.safetensors"
    assert set(load_file(path)) == set(adapter_tensors(toy.student().generator))
    assert adapter_steps(path) == toy.SETTINGS.steps
    assert {file.name for file in path.parent.iterdir()} == {
        "adapter.safetensors", "order.json", "sheet.png", "scores.json"
    }  # fmt: skip
    assert run.keep(library) == path
    scores = run.scores()
    assert scores is not None
    assert scores["prompts"] == ["a flat blue box", *toy.CAPTIONS]
    assert scores["after"]["held out"]["count"] == 2
    assert scores["after"]["learned"]["count"] == 4
    sheet = np.asarray(Image.open(path.with_name("sheet.png")))
    assert sheet.min() < 100 < sheet.max()
    with pytest.raises(UserError, match="An adapter named mine already exists"):
        CONFIG.check(library)
    with pytest.raises(UserError, match="An adapter named mine already exists"):
        Run(run.folder, replace(CONFIG, seed=5)).keep(library)
    run.discard()
    assert not run.folder.exists()
    assert path.is_file()


def test_full_tuning_saves_the_trained_base(tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "mine", replace(CONFIG, tuning="full", preview_every=0))
    finish(run)
    tensors, base = split_base_tensors(load_file(run.keep(tmp_path / "library")))
    student = toy.student(replace(toy.SETTINGS, tuning="full")).generator
    assert set(tensors) == set(adapter_tensors(student))
    before = base_parameters(student)
    assert set(base) == set(before)
    (tmp_path / "library" / "mine" / "order.json").write_text("what lies beside it may be broken")
    with pytest.raises(UserError, match="mine was trained with full tuning"):
        replace(CONFIG, name="more", start="mine").check(tmp_path / "library")
    moved = {name for name, value in base.items() if not torch.equal(value, before[name])}
    assert {"unet.conv_in.weight", "decoder.conv_in.weight"} <= moved


def test_resumed_run_equals_uninterrupted_run(finished: Run, tmp_path: Path) -> None:
    parts = Run.begin(tmp_path / "parts", CONFIG)
    for stop in (1, 3):
        work = train(parts, MODEL_FILES, CPU)
        while next(work).iteration < stop:
            pass
        work.close()
        assert parts.status["state"] == "paused"
        assert parts.status["iteration"] == stop
        parts.keep(tmp_path / "library")  # stopped and kept
    seconds = parts.status["seconds"]
    reports = finish(Run.open(tmp_path / "parts"))
    assert [report.iteration for report in reports if report.losses] == [4]
    assert parts.status["seconds"] > seconds
    assert [entry["iteration"] for entry in parts.log()] == [1, 2, 3, 4]
    one, other = (load_file(run.folder / "learned.safetensors") for run in (finished, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert finished.scores() == parts.scores()


def test_run_ended_early_is_evaluated(tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "mine", CONFIG)
    for report in train(run, MODEL_FILES, CPU):
        run.ending = report.iteration == 1
    assert (run.status["state"], run.status["iteration"], run.status["iterations"]) == ("finished", 1, 4)
    assert run.sheet is not None
    assert run.scores() is not None
    assert run.keep(tmp_path / "library").is_file()


def test_resume_discards_log_and_previews_after_the_checkpoint(finished: Run, tmp_path: Path) -> None:
    run = copied(finished, tmp_path)
    log = run.log()
    run.rewind(4)
    assert run.log() == log
    assert len(run.previews()) == 3
    run.rewind(2)
    assert run.log() == log[:2]
    assert [path.stem for path in run.previews()] == ["0000000", "0000002"]


def test_interrupted_preview_is_rendered_on_resume(halfway: Run, tmp_path: Path) -> None:
    run = copied(halfway, tmp_path)
    assert [path.stem for path in run.previews()] == ["0000000"]
    finish(run)
    assert [path.stem for path in run.previews()] == ["0000000", "0000002", "0000004"]


def test_run_is_locked(tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "mine", CONFIG)
    work = train(run, MODEL_FILES, CPU)
    next(work)
    assert run.status["state"] == "running"
    with pytest.raises(UserError, match="is in use"):
        next(train(Run.open(tmp_path / "mine"), MODEL_FILES, CPU))
    with pytest.raises(UserError, match="is in use"):
        run.discard()
    assert run.status["state"] == "running"
    work.close()
    with pytest.raises(UserError, match="has no result yet"):
        run.keep(tmp_path / "library")
    with pytest.raises(UserError, match="A run named mine already exists"):
        Run.begin(tmp_path / "mine", CONFIG)


def test_killed_run_is_stopped(tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "mine", CONFIG)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tests.helpers.training_setups import MODEL_FILES, setup_toy\n"
        "from triplaneturbo.finetune import runner\nfrom triplaneturbo.finetune.run import Run\n"
        "from triplaneturbo.finetune.runner import train\n"
        "import torch; torch.set_num_threads(1)\n"
        "runner.prepare = setup_toy\n"
        "for report in train(Run.open(Path(sys.argv[1])), MODEL_FILES, torch.device('cpu')):\n"
        "    if report.iteration == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.folder)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert (run.status["state"], run.status["iteration"]) == ("stopped", 2)
    finish(run)
    assert run.status["state"] == "finished"
    assert [entry["iteration"] for entry in run.log()] == [1, 2, 3, 4]


def test_failed_run_keeps_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.begin(tmp_path / "mine", CONFIG)

    def vanished(rng: np.random.Generator, count: int, steps: int, place) -> list:
        if place.iteration == 2:
            raise UserError("There is no file teacher.pt; restore it.")
        return toy_draw(rng, count, steps, place)

    toy_draw = toy.draw
    with monkeypatch.context() as patch:
        patch.setattr(toy, "draw", vanished)
        with pytest.raises(UserError, match=r"teacher\.pt"):
            finish(run)
    assert run.status["state"] == "failed"
    assert run.status["sentence"] == "There is no file teacher.pt; restore it."
    assert run.keep(tmp_path / "library").is_file()
    reports = finish(run)
    assert [report.iteration for report in reports if report.losses] == [3, 4]


def test_full_disk_keeps_the_last_checkpoint(
    halfway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(halfway, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="free some space"):
            finish(run)
    assert (run.status["state"], run.status["iteration"]) == ("paused", 2)
    assert not list(run.folder.rglob("*.part"))
    finish(run)
    assert run.status["state"] == "finished"


def test_runs_are_listed_newest_first_without_broken_ones(tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        Run.begin(tmp_path / name, replace(CONFIG, name=name))
        os.utime(tmp_path / name / "order.json", (number, number))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "order.json").write_text("{")
    (tmp_path / "no run").mkdir()
    assert [run.config.name for run in runs(tmp_path)] == ["second", "first"]
    assert runs(tmp_path / "none") == []
    with pytest.raises(UserError, match="is broken"):
        Run.open(tmp_path / "broken")
    with pytest.raises(UserError, match="There is no run"):
        Run.open(tmp_path / "none")


def test_config_of_another_version_is_loaded(tmp_path: Path) -> None:
    CONFIG.save(tmp_path)
    told = json.loads((tmp_path / "order.json").read_text())
    (tmp_path / "order.json").write_text(json.dumps({**told, "fashion": 1}))
    assert asdict(FinetuneConfig.load(tmp_path)) == asdict(CONFIG)


def test_config_with_renamed_settings_is_loaded(tmp_path: Path) -> None:
    values = {**asdict(CONFIG), "rate": 3e-4, "scored": 2, "begun": 0.5}
    for name in ("learning_rate", "scored_steps", "schedule_offset"):
        del values[name]
    (tmp_path / "order.json").write_text(json.dumps(values))
    expected = replace(CONFIG, learning_rate=3e-4, scored_steps=2, schedule_offset=0.5)
    assert asdict(FinetuneConfig.load(tmp_path)) == asdict(expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "a/b"}, "The name 'a/b' is invalid"),
        ({"name": "../mine"}, "is invalid"),
        ({"name": ""}, "is invalid"),
        ({"prompts": ()}, "There is no usable prompt"),
        ({"iterations": 0}, "1 to 1,000,000, not 0"),
        ({"iterations": 10**9}, "not 1000000000"),
        ({"learning_rate": 0}, "above 0 and at most 0.1, not 0"),
        ({"learning_rate": -1e-3}, "learning rate"),
        ({"learning_rate": 1e9}, "learning rate"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"batch": 0}, "The batch"),
        ({"batch": True}, "The batch"),
        ({"teachers": ("rgb", "owl")}, "not 'owl'"),
        ({"renderings": ()}, "No rendering is selected"),
        ({"renderings": ("hologram",)}, "volume or surface"),
        ({"tuning": "guitar"}, "peta, lora or full"),
        ({"tuning": "full", "start": "mine"}, "Full tuning cannot start from an adapter"),
        ({"optimizer": "luck"}, "adamw, soap or adan"),
        ({"rank": 7}, "The rank"),
        ({"steps": -1}, "denoising steps"),
        ({"steps": 2, "scored_steps": 3}, "scored steps"),
        ({"seed": -1}, "The seed"),
        ({"schedule_offset": 1.5}, "schedules"),
        ({"score": "dmd"}, "The score should be asd, sds, csd, vsd or ism"),
        ({"weighting": "flat"}, "weighting"),
        ({"asd_shift_level": "later"}, "level of ASD's shift should be t or own"),
        ({"ism_stride": 0}, "stride"),
        ({"critic_rank": 0}, "critics"),
        ({"critic_rate": 1.0}, "critics"),
        ({"name": "nothing"}, "stands for a new adapter"),
        ({"start": "nobody"}, "There is no adapter 'nobody'"),
    ],
)
def test_invalid_configs_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    CONFIG.check(tmp_path)
    with pytest.raises(UserError) as error:
        replace(CONFIG, **change).check(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_configs(tmp_path: Path, preset: str, domain: Domain) -> None:
    replace(CONFIG, **domain.presets[preset]).check(tmp_path)


def test_try_preset_is_estimated_below_four_minutes() -> None:
    config = replace(
        CONFIG, prompts=tuple(f"a cup {letter}" for letter in "abcdefgh"), **TOY_WORLD.presets["try"]
    )
    estimate = training_of(TOY_WORLD).estimate
    told = estimate(config, 4)
    assert told.seconds is not None
    assert 100 < told.seconds < 200
    assert told.sentence == "About 2 min on two cores, and 2.2 GB."
    assert estimate(replace(config, scored_steps=0), 4).seconds > 2 * told.seconds  # type: ignore[operator]
    assert training_of(OPEN_VOCABULARY).estimate(config, 4).seconds is None
