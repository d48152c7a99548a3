"""fine-tune the model on your own prompts and install the resulting adapter

    python -m triplaneturbo finetune --prompts mine.txt --name mine
    python -m triplaneturbo generate "a small red cactus" --adapter mine

FILE is a .txt with one prompt per line (with templates such as "a {red|blue} {animal}" and a separate line
{animal: cat, dog}), or a .csv, .json or .jsonl; --corpus streams a file of any length. Ctrl-C saves the run;
--resume continues it, optionally with a lower --rate.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.cli import BAD_INPUT, DONE, INTERRUPTED
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.generate import decimal, integer
from triplaneturbo.cli.interrupts import deferred_interrupt
from triplaneturbo.distill.corpora.prompt_list import read_file, split
from triplaneturbo.domains.domain import PRESETS
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import OPTIMIZERS, TUNINGS, FinetuneConfig
from triplaneturbo.finetune.duration import SHOWN
from triplaneturbo.finetune.run import RUNS, SHEET, Report, Run
from triplaneturbo.models.catalog import ModelFiles, base_or_default, find_model
from triplaneturbo.request import shown
from triplaneturbo.serving.preflight import check_process
from triplaneturbo.teachers.settings import KINDS, SHIFT_LEVELS, WEIGHTINGS

if TYPE_CHECKING:
    from triplaneturbo.models.config import GeneratorConfig
    from triplaneturbo.utils.distributed import DistributedContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. FinetuneConfig checks their values."""
    add = parser.add_argument
    add("--prompts", metavar="FILE", help="training prompts as .txt, .csv, .json or .jsonl")
    add(
        "--corpus",
        metavar="FILE",
        help="stream training prompts from a file of any length, also .parquet; full model only",
    )
    add("--column", metavar="NAME", help="column of a table or key of JSON objects that contains the prompts")
    add(
        "--name",
        metavar="NAME",
        help="name of the adapter: a-z, 0-9, - and _; default: derived from FILE",
    )
    add("--resume", action="store_true", help="resume the run called NAME")
    add(
        "--preset",
        default="try",
        metavar="|".join(PRESETS),
        help="length of the training; default try, under 5 minutes",
    )
    add("--steps", type=integer, metavar="N", help="optimizer steps; default: the preset's")
    add("--batch", type=integer, metavar="N", help="prompts per step and process; default: the preset's")
    add("--rate", type=decimal, metavar="R", help="peak learning rate; default: the preset's")
    add(
        "--held-out",
        type=decimal,
        default=0.0,
        metavar="FRACTION",
        help="fraction of --prompts held out for evaluation, default 0; with --corpus, eight prompts are"
        " held out",
    )
    add(
        "--from",
        dest="start",
        default="",
        metavar="ADAPTER",
        help="initial adapter, or nothing for a new one; default: the model's own",
    )
    add("--teachers", default="", metavar="A,B", help="teachers to distill; default: all that the model has")
    add(
        "--tuning",
        default="peta",
        metavar="|".join(TUNINGS),
        help="weights to train; lora and full start without an adapter; default peta",
    )
    add("--rank", type=integer, default=0, metavar="N", help="rank of a new adapter; default: the model's")
    add("--score", default="", metavar="|".join(KINDS), help="kind of score; default: each teacher's own")
    add(
        "--asd-shift-level",
        default=FinetuneConfig.asd_shift_level,
        metavar="|".join(SHIFT_LEVELS),
        help="noise level of ASD's shifted prediction: t, as in the released code, or its own, as in the"
        " paper; default %(default)s",
    )
    add(
        "--weighting",
        default=FinetuneConfig.weighting,
        metavar="|".join(WEIGHTINGS),
        help="weighting of --score; default %(default)s",
    )
    for flag, type_, metavar, what in (
        ("--ism-stride", integer, "T", "step of ISM's inversion"),
        ("--ism-interval", integer, "T", "ISM's last step"),
        ("--critic-rank", integer, "N", "rank of VSD's critics"),
        ("--critic-rate", decimal, "R", "learning rate of VSD's critics"),
    ):
        default = getattr(FinetuneConfig, flag[2:].replace("-", "_"))
        add(flag, type=type_, default=default, metavar=metavar, help=f"{what}, default {default:g}")
    add(
        "--denoising-steps",
        type=integer,
        default=0,
        metavar="K",
        help="denoising steps of the generator; default: the model's",
    )
    add(
        "--scored",
        type=integer,
        metavar="N",
        help="number of the K steps whose output the teachers score, 0: all; default: the preset's",
    )
    add(
        "--renderings",
        default="volume,surface",
        metavar="A,B",
        help="renderings to score: volume, surface or both (default)",
    )
    add("--optimizer", metavar="|".join(OPTIMIZERS), help="optimizer; default: the preset's")
    add("--seed", type=integer, default=0, metavar="N", help="random seed, default 0")
    add(
        "--preview-every",
        type=integer,
        metavar="N",
        help="steps between preview images, 0: none; default: the preset's",
    )
    add(
        "--embeddings",
        default="",
        metavar="FOLDER",
        help="precomputed text embeddings from the embed command",
    )
    add("--tensorboard", action="store_true", help="also write logs for TensorBoard")
    add_model_flags(parser)
    add(
        "--memory",
        type=decimal,
        metavar="GB",
        help="device memory to use for the full model; default: all that is free",
    )
    add("--runs", default=str(RUNS), metavar="FOLDER", help="folder of the runs; default outputs/runs")
    add("--quiet", action="store_true", help="do not show progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Start or resume a run, and install its adapter at the end."""
    check_process()
    if arguments.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed; run pip install tensorboard, or omit --tensorboard.")
    draft = None if arguments.resume else _draft_config(arguments)
    name = draft.name if draft else _name(arguments)
    folder = Path(arguments.runs) / name
    if draft is None:
        Run.open(folder)
    elif (folder / "order.json").exists():
        raise UserError(
            f"The run {name} already exists; resume it with --resume, delete {folder}, or choose"
            " another --name."
        )

    from triplaneturbo.utils.devices import choose_device
    from triplaneturbo.utils.distributed import CollectiveError, is_launched, launched

    shared = is_launched(os.environ)
    device = choose_device(arguments.device).device
    found = find_model(arguments.model, device.type == "cuda", base_or_default(arguments.base))
    with launched(os.environ, device.type if shared else str(device)) as context:
        if context.is_main_process:
            _prepare_run(arguments, draft, folder, found, context)
        context.wait()
        try:
            return _train(arguments, Run.open(folder), found, context)
        except CollectiveError:
            if context.is_main_process:
                raise
            return BAD_INPUT


def _prepare_run(
    arguments: argparse.Namespace,
    draft: FinetuneConfig | None,
    folder: Path,
    found: ModelFiles,
    context: DistributedContext,
) -> None:
    """Create the run or apply the changes of a resumed one, and print the expected duration and memory.

    Raises:
        UserError: the configuration is invalid, or the run does not fit into memory; no run is created then.
    """
    with collection_paused():
        from triplaneturbo.finetune.domain_training import training_of
        from triplaneturbo.models.config import GeneratorConfig
        from triplaneturbo.models.convert import convert_if_needed

    convert_if_needed(found)
    config = GeneratorConfig.load(found.folder)
    if draft is None:
        run = Run.open(folder)
        run.change(arguments.rate, arguments.memory)
        finetune_config = run.config
    else:
        finetune_config = _complete_config(arguments, draft, found, config)
    training = training_of(find_domain(config.domain))
    if training.plan is not None:
        _print_status(arguments, training.plan(finetune_config, found, config, context.device).table())
    if draft is not None:
        Run.begin(folder, finetune_config)
        _print_status(arguments, training.estimate(finetune_config, config.steps).sentence)


def _draft_config(arguments: argparse.Namespace) -> FinetuneConfig:
    """Return the configuration given by the flags, checked as far as possible without the model.

    Raises:
        UserError: a value is invalid.
    """
    if (arguments.prompts is None) == (arguments.corpus is None):
        raise UserError("Give either --prompts FILE or --corpus FILE; see --help.")
    if arguments.preset not in PRESETS:
        raise UserError(f"Unknown preset {shown(arguments.preset)}; use {', '.join(PRESETS)}.")
    if arguments.corpus is not None and arguments.held_out:
        raise UserError(
            "--held-out applies to --prompts only; omit it, as eight prompts of a corpus are always held out."
        )
    given: dict[str, Any] = {field: getattr(arguments, flag) for field, flag in _PRESET_FLAGS.items()}
    training: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    if arguments.prompts is not None:
        prompts = read_file(Path(arguments.prompts), arguments.column)
        for line in (prompts.summary, *prompts.notes):
            _print_status(arguments, line)
        training, held_out = split(prompts.prompts, arguments.held_out, arguments.seed)
    config = FinetuneConfig(
        name=_name(arguments),
        prompts=training,
        held_out=held_out,
        corpus=arguments.corpus or "",
        column=(arguments.column or "") if arguments.corpus else "",
        memory=arguments.memory or 0.0,
        embeddings=arguments.embeddings,
        teachers=_split_commas(arguments.teachers),
        start=arguments.start,
        tuning=arguments.tuning,
        rank=arguments.rank,
        score=arguments.score,
        asd_shift_level=arguments.asd_shift_level,
        weighting=arguments.weighting,
        ism_stride=arguments.ism_stride,
        ism_interval=arguments.ism_interval,
        critic_rank=arguments.critic_rank,
        critic_rate=arguments.critic_rate,
        steps=arguments.denoising_steps,
        renderings=_split_commas(arguments.renderings),
        seed=arguments.seed,
        **{key: value for key, value in given.items() if value is not None},
    )
    config.check()
    return config


def _complete_config(
    arguments: argparse.Namespace, draft: FinetuneConfig, found: ModelFiles, model: GeneratorConfig
) -> FinetuneConfig:
    """Fill in the preset's values and remove prompts that the model cannot express.

    Args:
        arguments: the command's arguments.
        draft: the configuration given by the flags.
        found: the model's files.
        model: the model's configuration.

    Raises:
        UserError: no prompt is left, or the model does not support a teacher or a corpus.
    """
    from dataclasses import replace

    from triplaneturbo.finetune.setup import check_fit

    domain = find_domain(model.domain)
    check_fit(draft, domain, found.name)
    given = {
        field: getattr(draft, field) for field, flag in _PRESET_FLAGS.items() if _is_given(arguments, flag)
    }
    config = replace(draft, **{**domain.presets[arguments.preset], **given})
    vocabulary = domain.vocabulary
    rejected = vocabulary.misfits(config.prompts + config.held_out) if vocabulary is not None else {}
    if rejected:
        reasons = "; ".join(f"{shown(prompt)}, {why}" for prompt, why in rejected.items())
        _print_status(arguments, f"Skipped {len(rejected)} prompts that the model cannot express: {reasons}")
        config = replace(
            config,
            prompts=tuple(prompt for prompt in config.prompts if prompt not in rejected),
            held_out=tuple(prompt for prompt in config.held_out if prompt not in rejected),
        )
    if config.corpus:
        from triplaneturbo.distill.corpora.corpus import hold_out

        held_out, others = hold_out(Path(config.corpus), config.column or None, SHOWN)
        previews = tuple([*held_out, *others][:SHOWN])
        config = replace(config, held_out=tuple(held_out), preview_prompts=previews)
        _print_status(arguments, f"{len(held_out)} prompts of the corpus are held out for evaluation.")
    config.check()
    return config


def _train(arguments: argparse.Namespace, run: Run, found: ModelFiles, context: DistributedContext) -> int:
    """Train until the run ends or is interrupted; install the adapter at the end."""
    with collection_paused():
        from triplaneturbo.finetune.runner import train
        from triplaneturbo.utils.kernels import announced_on_stderr

    reports = train(run, found, context.device, context)
    stopped = False
    with (
        deferred_interrupt() as interrupted,
        announced_on_stderr(arguments.quiet or not context.is_main_process),
    ):
        for _ in _with_progress(arguments, run, reports) if context.is_main_process else reports:
            if interrupted():
                stopped = True
                break
        reports.close()
    if not context.is_main_process:
        return INTERRUPTED if stopped else DONE
    if stopped:
        status = run.status
        print(
            f"Stopped after step {status['iteration']} of {status['iterations']}; the run is saved. Resume it"
            f" with python -m triplaneturbo finetune --resume --name {run.config.name}",
            file=sys.stderr,
        )
        return INTERRUPTED
    from triplaneturbo.finetune.evaluation import score_lines

    path = run.keep()
    for line in score_lines(run.scores() or {}):
        print(line)
    sheet = path.with_name(SHEET)
    if sheet.exists():
        print(f"before and after: {sheet}")
    print(f'{path}: python -m triplaneturbo generate "..." --adapter {run.config.name}')
    return DONE


def _with_progress(arguments: argparse.Namespace, run: Run, reports: Iterator[Report]) -> Iterator[Report]:
    """Yield the reports while showing a progress bar and, if requested, logging to TensorBoard."""
    from tqdm import tqdm

    board = None
    if arguments.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(run.folder / "tensorboard"))
    hidden = arguments.quiet or not sys.stderr.isatty()
    with tqdm(
        total=run.config.iterations, initial=run.status["iteration"], unit="step", disable=hidden
    ) as bar:
        for report in reports:
            bar.set_description_str(report.doing[:40], refresh=False)
            bar.update(report.iteration - bar.n)
            if report.losses:
                bar.set_postfix({name: f"{value:.3g}" for name, value in report.losses.items()})
                if board is not None:
                    for name, value in report.losses.items():
                        board.add_scalar(name, value, report.iteration)
            if report.preview is not None and not arguments.quiet:
                bar.write(f"step {report.iteration}: {report.preview}", file=sys.stderr)
            yield report
    if board is not None:
        board.close()


# Fields of FinetuneConfig with defaults from the preset, and the flags that override them.
_PRESET_FLAGS = {
    "iterations": "steps",
    "batch": "batch",
    "learning_rate": "rate",
    "optimizer": "optimizer",
    "scored_steps": "scored",
    "preview_every": "preview_every",
}


def _name(arguments: argparse.Namespace) -> str:
    """Return the given name, or one derived from the file's name."""
    if arguments.name is not None:
        return arguments.name
    file = arguments.prompts or arguments.corpus
    if not file:
        raise UserError("--resume requires the name of the run; add --name NAME.")
    return re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-")[:64] or "mine"


def _is_given(arguments: argparse.Namespace, flag: str) -> bool:
    return getattr(arguments, flag) is not None


def _split_commas(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _print_status(arguments: argparse.Namespace, line: str) -> None:
    if not arguments.quiet:
        print(line, file=sys.stderr)
