"""Fine-tuning of the full model at small sizes: teachers, runs, adapters, memory savings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.full_toy import small_full
from tests.helpers.pace import until
from triplaneturbo.__main__ import main
from triplaneturbo.distill import prd
from triplaneturbo.distill import student as student_module
from triplaneturbo.distill.loss_scaling import MAX_SKIPPED, LossScaler
from triplaneturbo.distill.memory_plan import LADDER, MemorySavings, Plan
from triplaneturbo.distill.prd import Student
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import memory_plan as memory_plan_module
from triplaneturbo.finetune import run as run_module
from triplaneturbo.finetune import setup_full as setup_full_module
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.memory_plan import (
    COUNTING,
    Forecast,
    frozen_dtype,
    full_plan,
    full_settings,
)
from triplaneturbo.finetune.run import Run
from triplaneturbo.finetune.setup_full import draw_views, load_parts
from triplaneturbo.models import adapters
from triplaneturbo.models.catalog import ModelFiles, find_model
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.convert import convert_if_needed
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.weights import load_base, load_text
from triplaneturbo.teachers import mvdream, richdreamer
from triplaneturbo.teachers.offload import SequentialOffload
from triplaneturbo.teachers.stable_diffusion import StableDiffusion
from triplaneturbo.utils.devices import full_autocast_dtype
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.units import GB

CPU = torch.device("cpu")
CONFIG = FinetuneConfig(
    "mine", prompts=("a red cup", "a blue hat"), iterations=2, batch=1, steps=1,
    learning_rate=2e-4, optimizer="adan", preview_every=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        yield small_full(parity, tmp_path_factory.mktemp("full"), patch)


@pytest.fixture(scope="module")
def model_files(model: Path) -> ModelFiles:
    model_files = find_model(str(model), False)
    convert_if_needed(model_files)
    return model_files


@pytest.fixture(scope="module")
def unsaved(model_files: ModelFiles) -> tuple[dict[str, float], dict[str, Tensor], Student]:
    """An iteration of `CONFIG` that saves no memory."""
    return one_iteration(model_files, MemorySavings())


@pytest.fixture
def cli(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable:
    """Run a command in an empty folder with its own adapter library: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    shelf = tmp_path / "library"
    monkeypatch.setattr(Run.keep, "__defaults__", (shelf,))
    monkeypatch.setattr(run_module.FinetuneConfig.check, "__defaults__", (shelf,))
    for function in (adapters.adapter, adapters.adapter_digest, adapters.adapters):
        monkeypatch.setattr(function, "__defaults__", (shelf,))

    def run(*argv: str) -> tuple[int, str, str]:
        code = main([*argv, "--model", str(model), "--device", "cpu"])
        return code, *capsys.readouterr()

    return run


QUICK = ["--runs", "runs", "--steps", "2", "--batch", "1", "--denoising-steps", "1", "--preview-every", "0"]


def test_finetune_resume_and_generate(cli: Callable, model: Path, tmp_path: Path) -> None:
    """From the command, through a checkpoint and --resume with a lower rate, to a mesh."""
    (tmp_path / "mine.txt").write_text("a red cup\n")
    step, told = prd.Trainer.step, []

    def stopped(trainer: prd.Trainer) -> dict[str, float]:
        if trainer.iteration == 1 and not told:
            told.append(trainer.iteration)
            raise KeyboardInterrupt
        return step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prd.Trainer, "step", stopped)
        code, _, err = cli("finetune", "--prompts", "mine.txt", *QUICK)
    assert code == 130
    run = Run.open(tmp_path / "runs" / "mine")
    assert (run.status["state"], run.status["iteration"]) == ("paused", 1)
    for part in ("U-Net, frozen", "mvdream: weights", "richdreamer: weights", "The run takes"):
        assert part in err
    assert {"mvdream volume", "richdreamer surface", "sd volume"} <= run.log()[0].keys()

    resume = ["finetune", "--resume", "--name", "mine", "--runs", "runs"]
    code, _, err = cli(*resume, "--rate", "1e-2")
    assert code == 2
    assert "can only be lowered from 0.0002, not raised to 0.01" in err
    code, _, err = cli(*resume, "--memory", "0.001")
    assert code == 2
    assert err.startswith("This run needs")
    code, out, err = cli(*resume, "--rate", "1e-4", "--memory", "20")
    assert code == 0, err
    assert Run.open(run.folder).config.learning_rate == 1e-4
    assert [entry["iteration"] for entry in run.log()] == [1, 2]
    scores = json.loads((tmp_path / "library" / "mine" / "scores.json").read_text())
    assert scores["prompts"] == ["a red cup"]
    assert "--adapter mine" in out

    learned = load_file(tmp_path / "library" / "mine" / "adapter.safetensors")
    (own,) = (model.parent / "cache").rglob("adapter.safetensors")
    moved = [float((learned[name] - value).abs().max()) for name, value in load_file(own).items()]
    assert 0 < max(moved) < 0.1
    quick = ["--resolution", "24", "--texture-size", "512", "--steps", "1", "--quiet", "--faces", "200"]
    for adapter in ([], ["--adapter", "mine"]):
        code, _, err = cli("generate", "a red cup", "-o", f"{len(adapter)}.glb", *adapter, *quick)
        assert code == 0, err
    assert (tmp_path / "0.glb").read_bytes() != (tmp_path / "2.glb").read_bytes()


def test_corpus_run_is_evaluated_on_held_out_prompts(cli: Callable, tmp_path: Path) -> None:
    """A column is chosen, and held-out prompts are not used for training."""
    learned = ["a red cup a", "a red cup b"]
    held = ["a blue hat", "a red cup b"]
    (tmp_path / "many.json").write_text(json.dumps({"mine": learned, "train": ["a cap"], "val": held}))
    quick = [*QUICK[:2], "--steps", "1", *QUICK[4:], "--teachers", "sd", "--renderings", "volume"]
    code, _, err = cli("finetune", "--corpus", "many.json", "--column", "mine", *quick)
    assert code == 0, err
    assert "mvdream: weights" not in err
    run = Run.open(tmp_path / "runs" / "many")
    assert run.config.held_out == tuple(held)
    assert run.preview_prompts() == ("a blue hat", "a red cup b", "a red cup a")
    corpus = (run.folder / "corpus" / "corpus.txt").read_text().splitlines()
    assert corpus == ["a red cup a"]
    scores = run.scores()
    assert scores is not None
    assert (scores["after"]["held out"]["count"], scores["after"]["learned"]["count"]) == (4, 2)


def plan_with(savings: MemorySavings, frozen: torch.dtype = torch.float32) -> Plan:
    return Plan({}, savings, GB, frozen)


def one_iteration(
    model_files: ModelFiles,
    savings: MemorySavings,
    frozen: torch.dtype = torch.float32,
    run_config: FinetuneConfig = CONFIG,
) -> tuple[dict[str, float], dict[str, Tensor], Student]:
    """The log and the gradients of an iteration of K = 1, computed in the weights' precision."""
    config = GeneratorConfig.load(model_files.folder)
    student, teachers = load_parts(
        run_config, model_files, config, DistributedContext(), plan_with(savings, frozen), files()
    )
    for teacher in teachers:
        inner = teacher.teacher if isinstance(teacher, SequentialOffload) else teacher
        inner.autocast = None
        assert isinstance(teacher, SequentialOffload) == savings.offload_teachers
        assert getattr(inner, "view_by_view", savings.views) == savings.views
    settings = full_settings(run_config, config, CPU)
    draw = draw_views(CONFIG.prompts, 0, CPU)
    scaler = LossScaler.for_dtype(student.generator.dtype)
    scaler.factor = min(scaler.factor, 2.0**6)  # low enough that only a few steps are skipped
    named = {n: p for n, p in student.generator.named_parameters() if p.requires_grad}
    for _ in range(MAX_SKIPPED):  # as a run does
        log = prd.accumulate_gradients(student, teachers, draw, settings, prd.Place(), None, scaler=scaler)
        if scaler.unscale(named.values()):
            break
    return log, {n: p.grad for n, p in named.items() if p.grad is not None}, student


def files() -> dict[str, Any]:
    return setup_full_module.teacher_files(("mvdream", "richdreamer", "sd"))


def test_memory_savings_do_not_change_gradients(model_files: ModelFiles, unsaved: tuple) -> None:
    log, wanted, plain = unsaved
    assert not plain.generator._recomputing
    assert {"mvdream surface", "richdreamer volume", "sd volume"} <= log.keys()
    size = sum(float(value.norm()) ** 2 for value in wanted.values()) ** 0.5
    assert size > 0
    for saved in ("texts", "views", "checkpointing", "offload_teachers"):
        same_log, gradients, student = one_iteration(model_files, replace(MemorySavings(), **{saved: True}))
        assert student.generator._recomputing == (saved == "checkpointing")
        assert same_log == pytest.approx(log, rel=1e-3), saved
        assert gradients.keys() == wanted.keys()
        difference = (
            sum(float((gradients[name] - value).norm()) ** 2 for name, value in wanted.items()) ** 0.5
        )
        assert difference < 1e-3 * size, saved


def test_float16_with_loss_scaling_matches_float32(model_files: ModelFiles, unsaved: tuple) -> None:
    """The precision of a GPU for student, teachers and savings."""
    _, wanted, _ = unsaved
    _, half_gradients, student = one_iteration(model_files, LADDER[-1], torch.float16)
    assert student.generator.dtype == torch.float16
    assert half_gradients.keys() == wanted.keys()
    assert {value.dtype for value in half_gradients.values()} == {torch.float32}
    size = sum(float(value.norm()) ** 2 for value in wanted.values()) ** 0.5
    difference = (
        sum(float((half_gradients[name] - value).norm()) ** 2 for name, value in wanted.items()) ** 0.5
    )
    assert difference < 0.05 * size


def test_full_tuning_trains_the_base_with_a_separate_teacher(model_files: ModelFiles) -> None:
    run_config, config = replace(CONFIG, tuning="full"), GeneratorConfig.load(model_files.folder)
    _, gradients, student = one_iteration(model_files, MemorySavings(), run_config=run_config)
    assert gradients["unet.conv_in.weight"].any()
    _, teachers = load_parts(
        run_config, model_files, config, DistributedContext(), plan_with(MemorySavings()), files()
    )
    (sd,) = (teacher for teacher in teachers if isinstance(teacher, StableDiffusion))
    plain = load_base(model_files.base or model_files.folder)[0].state_dict()
    with sd.base() as unet:
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        assert unet.state_dict().keys() == plain.keys()
        assert all(torch.equal(value, plain[name]) for name, value in unet.state_dict().items())
    asked = {
        names: full_plan(replace(run_config, teachers=names), model_files, config, CPU)
        for names in ((), ("mvdream",))
    }
    assert "separate base, as a teacher" in asked[()].table()
    assert "separate base, as a teacher" not in asked["mvdream",].table()
    assert student.generator.unet.conv_in.weight.requires_grad


@pytest.mark.parametrize("aside", [False, True])
def test_text_encoders_stay_on_the_cpu(
    model_files: ModelFiles, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device replaces a GPU."""
    loaded = []

    def load(*args) -> TextEncoder:
        loaded.append(load_text(*args))
        return loaded[-1]

    monkeypatch.setattr(richdreamer, "load_text", load)
    monkeypatch.setattr(student_module, "load_text", load)
    meta = torch.device("meta")
    student, _ = load_parts(
        CONFIG, model_files, GeneratorConfig.load(model_files.folder), DistributedContext(device=meta),
        plan_with(MemorySavings(texts=aside)), files(),
    )  # fmt: skip
    assert student.generator.device == meta
    assert [text.model.device.type for text in loaded] == ["cpu" if aside else "meta"] * 2


def test_plan_respects_available_memory(model_files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GeneratorConfig.load(model_files.folder)
    free = full_plan(CONFIG, model_files, config, CPU)
    assert free.savings == MemorySavings()
    assert "mvdream: weights" in free.table()
    less = full_plan(replace(CONFIG, memory=(free.total - 1) / GB), model_files, config, CPU)
    assert less.total < free.total
    # The device's memory is the CPU's, so offloading saves nothing.
    assert less.savings in (MemorySavings(views=True), MemorySavings(checkpointing=True), LADDER[-2])
    with pytest.raises(UserError, match=r"This run needs .* and the device has 0\.0 GB: use a device with"):
        full_plan(replace(CONFIG, memory=1e-3), model_files, config, CPU)
    with monkeypatch.context() as patch:
        patch.setattr(memory_plan_module, "free_memory", lambda _: None)
        with pytest.raises(UserError, match="free memory is unknown on this system: give it in GB"):
            full_plan(CONFIG, model_files, config, CPU)
        assert full_plan(replace(CONFIG, memory=20), model_files, config, CPU).memory == 20 * GB
    alone = full_plan(replace(CONFIG, teachers=("sd",)), model_files, config, CPU)
    assert "mvdream: weights" not in alone.table()
    assert alone.total < free.total


def test_forecast_equals_the_plan_and_is_cached(model_files: ModelFiles) -> None:
    forecast = Forecast(full_plan, model_files, CPU)
    nothing = replace(CONFIG, memory=1e-3)
    assert forecast.of(CONFIG) == forecast.of(nothing) == COUNTING
    until(lambda: COUNTING not in (forecast.of(CONFIG), forecast.of(nothing)), seconds=120)
    plan = full_plan(CONFIG, model_files, GeneratorConfig.load(model_files.folder), CPU)
    told = forecast.of(CONFIG)
    assert told.bytes == plan.total
    assert told.sentence.startswith("The run takes")
    # Name and length do not affect the memory.
    assert forecast.of(replace(CONFIG, name="other", prompts=("a hat",), iterations=700)) == told
    assert forecast.of(replace(CONFIG, batch=2)) == COUNTING
    assert forecast.of(nothing).words == "does not fit"
    assert forecast.of(nothing).sentence.startswith("This run needs")


def test_mvdream_is_refused_for_incompatible_text_embeddings(
    model_files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GeneratorConfig.load(model_files.folder)
    monkeypatch.setitem(mvdream.UNET, "cross_attention_dim", 8)
    with pytest.raises(UserError, match=r"have 64 dimensions, but MVDream needs 8:.*leave mvdream out"):
        full_plan(CONFIG, model_files, config, CPU)
    assert full_plan(replace(CONFIG, teachers=("sd",)), model_files, config, CPU)


def test_gpu_computes_in_the_precision_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    for capability, kept in (((8, 0), torch.float16), ((6, 1), torch.float32)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, has=capability: has)
        assert (frozen_dtype(gpu), full_autocast_dtype(gpu)) == (kept, None)
    assert LossScaler.for_dtype(torch.float16).enabled
    assert frozen_dtype(CPU) == torch.float32


def test_new_adapter_starts_the_schedules_at_0(model_files: ModelFiles) -> None:
    config = GeneratorConfig.load(model_files.folder)
    for run_config, offset in (
        (CONFIG, 1.0),
        (replace(CONFIG, rank=4), 1.0),  # the model's own
        (replace(CONFIG, rank=8), 0.0),
        (replace(CONFIG, tuning="lora"), 0.0),
        (replace(CONFIG, schedule_offset=0.5), 0.5),
    ):
        assert full_settings(run_config, config, CPU).schedule_offset == offset
