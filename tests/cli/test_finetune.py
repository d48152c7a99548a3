"""The finetune command, mostly in the toy world: invalid input, saved files, resume and messages."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.helpers import toy
from tests.helpers.training_setups import CONFIG, setup_toy
from triplaneturbo.__main__ import main
from triplaneturbo.errors import UserError
from triplaneturbo.finetune import run as run_module
from triplaneturbo.finetune import runner
from triplaneturbo.finetune.run import Report, Run
from triplaneturbo.models import adapters
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.utils import distributed
from triplaneturbo.utils.distributed import CollectiveError, DistributedContext

PROMPTS = "a {red|blue} cup\n\na red cup\na mauve dragon\na cup that is wise\n"
QUICK = ["--model", "small", "--device", "cpu", "--steps", "4", "--batch", "2", "--optimizer", "adamw"]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command in an empty folder with its own folder of adapters: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "prepare", setup_toy)
    shelf = tmp_path / "library"
    monkeypatch.setattr(Run.keep, "__defaults__", (shelf,))
    monkeypatch.setattr(run_module.FinetuneConfig.check, "__defaults__", (shelf,))
    monkeypatch.setattr(adapters, "ADAPTERS", shelf)
    (tmp_path / "mine.txt").write_text(PROMPTS)

    def run(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(["finetune", "--runs", "runs", *argv])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return run


def test_start_size_and_score_are_those_of_the_options(cli: Cli, tmp_path: Path) -> None:
    options = {
        "--from": "nothing", "--tuning": "lora", "--rank": "24", "--teachers": "sd", "--score": "ism",
        "--weighting": "level", "--asd-shift-level": "own", "--ism-stride": "100", "--ism-interval": "20",
        "--critic-rank": "8", "--critic-rate": "1e-3", "--denoising-steps": "2",
    }  # fmt: skip
    code, _, err = cli("--prompts", "mine.txt", *QUICK, *(part for pair in options.items() for part in pair))
    assert code == 0, err
    config = Run.open(tmp_path / "runs" / "mine").config
    assert (config.start, config.tuning, config.rank, config.teachers) == ("nothing", "lora", 24, ("sd",))
    assert (config.score, config.weighting, config.asd_shift_level) == ("ism", "level", "own")
    assert (config.ism_stride, config.ism_interval) == (100, 20)
    assert (config.critic_rank, config.critic_rate, config.steps) == (8, 1e-3, 2)


def test_finetune_installs_an_adapter(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("--prompts", "mine.txt", *QUICK, "--rate", "2e-3", "--held-out", "0.3")
    assert code == 0, err
    assert "4 prompts; left out: 1 blank, 1 duplicate" in err
    assert "Skipped 2 prompts that the model cannot express" in err
    assert "'mauve', 'dragon'" in err
    assert "'wise'" in err
    config = Run.open(tmp_path / "runs" / "mine").config
    assert sorted(config.prompts + config.held_out) == ["a blue cup", "a red cup"]
    assert (config.iterations, config.batch, config.learning_rate, config.optimizer) == (4, 2, 2e-3, "adamw")
    assert config.scored_steps == 1  # the preset's
    assert load_file(tmp_path / "library" / "mine" / "adapter.safetensors")
    assert (tmp_path / "library" / "mine" / "sheet.png").is_file()
    assert "--adapter mine" in out

    code, _, err = cli("--prompts", "mine.txt", *QUICK)
    assert code == 2
    assert "An adapter named mine already exists" in err
    code, _, err = cli(
        "--resume", "--name", "mine", *QUICK
    )  # nothing is left to be done, and it says so again
    assert (code, err) == (0, "")


def test_ctrl_c_saves_and_resume_continues(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = toy.draw

    def interrupted(rng: np.random.Generator, count: int, steps: int, place) -> list:
        if place.iteration == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return drawn(rng, count, steps, place)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "draw", interrupted)
        code, _, err = cli("--prompts", "mine.txt", *QUICK)
    assert code == 130
    assert "Stopped after step 2 of 4" in err
    assert "finetune --resume --name mine" in err
    run = Run.open(tmp_path / "runs" / "mine")
    assert (run.status["state"], run.status["iteration"]) == ("paused", 2)
    assert not (tmp_path / "library").exists()
    code, _, err = cli("--prompts", "mine.txt", *QUICK)
    assert code == 2
    assert "--resume" in err
    assert cli("--resume", "--name", "mine", "--model", "small", "--device", "cpu")[0] == 0
    assert [entry["iteration"] for entry in run.log()] == [1, 2, 3, 4]
    assert (tmp_path / "library" / "mine" / "adapter.safetensors").is_file()


def test_finetune_with_one_prompt(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a red cup\n")
    code, _, err = cli("--prompts", "one.txt", *QUICK, "--held-out", "0.5", "--preview-every", "0")
    assert code == 0, err
    assert Run.open(tmp_path / "runs" / "one").config.held_out == ()
    assert Run.open(tmp_path / "runs" / "one").previews() == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "Give either --prompts FILE or --corpus FILE"),
        (["--prompts", "none.txt"], "Cannot read 'none.txt'"),
        (["--prompts", "mine.txt", "--name", "a/b"], "The name 'a/b' is invalid"),
        (["--prompts", "mine.txt", "--steps", "0"], "not 0"),
        (["--prompts", "mine.txt", "--steps", "1000000000"], "not 1000000000"),
        (["--prompts", "mine.txt", "--steps", "many"], "whole number"),
        (["--prompts", "mine.txt", "--rate", "0"], "The learning rate"),
        (["--prompts", "mine.txt", "--rate=-1"], "The learning rate"),
        (["--prompts", "mine.txt", "--rate", "1e9"], "The learning rate"),
        (["--prompts", "mine.txt", "--held-out", "2"], "The held-out share"),
        (["--prompts", "mine.txt", "--preset", "forever"], "try, short, thorough"),
        (["--prompts", "mine.txt", "--teachers", "owl"], "'owl'"),
        (["--prompts", "mine.txt", "--from", "nobody"], "There is no adapter 'nobody'"),
        (["--prompts", "mine.txt", "--column", "b"], "without columns"),
        (["--prompts", "blank.txt"], "There is no usable prompt"),
        (["--prompts", "mine.txt", "--memory=-1"], "The memory in GB should be 0 to 10000, not -1.0"),
        (["--corpus", "mine.txt", "--held-out", "0.1"], "--held-out applies to --prompts only"),
        (["--corpus", "mine.txt", "--model", "small"], "model small cannot be trained on a corpus"),
        (
            ["--prompts", "mine.txt", "--model", "small", "--teachers", "mvdream"],
            "small has no teacher mvdream",
        ),
        (["--resume"], "--resume requires the name of the run"),
        (["--resume", "--name", "none"], "There is no run"),
    ],
)
def test_bad_input_is_refused_before_any_work(cli: Cli, tmp_path: Path, argv: list[str], said: str) -> None:
    (tmp_path / "blank.txt").write_text(" \n\n")
    code, out, err = cli(*argv, "--quiet")
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_list_without_any_known_prompt_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "far.txt").write_text("a mauve dragon\n")
    code, _, err = cli("--prompts", "far.txt", *QUICK)
    assert code == 2
    assert err.splitlines()[-1].startswith("There is no usable prompt")
    assert not (tmp_path / "runs").exists()


def test_tensorboard_is_optional(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, err = cli("--prompts", "mine.txt", "--tensorboard")
    assert code == 2
    assert "pip install tensorboard" in err


def test_embed_prompt_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("a red cup\na blue cup\n\n")
    argv = [
        "embed",
        "--prompts",
        str(tmp_path / "mine.txt"),
        "--to",
        str(tmp_path / "to"),
        "--model",
        "small",
    ]
    assert main([*argv, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "2 prompts; left out: 1 blanks" in captured.err
    kept = load_file(tmp_path / "to" / "embeds-000000.safetensors")["embeds"]
    from triplaneturbo.models.weights import load_text

    want = load_text(SMALL).embed(["a red cup", "a blue cup"])
    assert kept.float().numpy() == pytest.approx(want.numpy(), abs=2e-3)


@pytest.mark.parametrize("rank", [0, 1])
def test_collective_errors_are_printed_by_the_main_process(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    @contextmanager
    def launched(*_: object) -> Iterator[DistributedContext]:
        yield DistributedContext(rank=rank)

    def train(*_: object) -> Iterator[Report]:
        yield Report(0, 4)
        raise CollectiveError("The rgb volume is not finite at iteration 4: give a lower rate.")

    Run.begin(tmp_path / "runs" / "mine", CONFIG)
    monkeypatch.setattr(distributed, "launched", launched)
    monkeypatch.setattr(runner, "train", train)
    code, _, err = cli("--resume", "--name", "mine", "--model", "small", "--device", "cpu")
    assert code == 2
    assert err == ("" if rank else "The rgb volume is not finite at iteration 4: give a lower rate.\n")


def test_learning_rate_can_only_be_lowered_on_resume(cli: Cli, tmp_path: Path) -> None:
    run = Run.begin(tmp_path / "runs" / "mine", CONFIG)
    with pytest.raises(UserError, match=r"lowered from 0\.001, not raised to 0\.01"):
        run.change(rate=0.01)
    with pytest.raises(UserError, match="The learning rate"):
        run.change(rate=0)
    assert Run.open(run.folder).config == CONFIG
    run.change()
    run.change(rate=1e-4, memory=12)
    assert run.config == Run.open(run.folder).config == replace(CONFIG, learning_rate=1e-4, memory=12)
    code, _, err = cli("--resume", "--name", "mine", "--rate", "5e-5", "--model", "small", "--device", "cpu")
    assert code == 0, err
    assert Run.open(run.folder).config.learning_rate == 5e-5
    run = Run.open(run.folder)
    run.change(rate=1e-5)
    run.keep(tmp_path / "library")  # the same run's, for all that


def test_finetune_built_in_model(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped model, teachers and judge: every part changes, and the adapter generates."""
    from triplaneturbo.finetune.prepare import prepare

    monkeypatch.setattr(runner, "prepare", prepare)
    (tmp_path / "cup.txt").write_text("a small red apple\n")
    quick = [*QUICK[:4], "--steps", "1", "--batch", "1", "--optimizer", "adamw", "--preview-every", "0"]
    code, out, err = cli("--prompts", "cup.txt", *quick)
    assert code == 0, err
    assert "learned: volume IoU" in out
    learned = load_file(tmp_path / "library" / "cup" / "adapter.safetensors")
    own = load_file(SMALL / "adapter.safetensors")
    assert learned.keys() == own.keys()
    moved = [float((learned[name].float() - own[name].float()).abs().max()) for name in own]
    assert 0 < max(moved) < 0.1
