"""fine-tune the model on prompts of your own; an adapter in the library comes of it

    python -m triplaneturbo finetune --prompts mine.txt --name mine
    python -m triplaneturbo generate "a small red cactus" --adapter mine

FILE holds a prompt a line (.txt, with templates such as "a {red|blue} {animal}" and {animal: cat, dog} on a
line of its own), or is a .csv, .json or .jsonl; --corpus streams one of any length. Ctrl-C saves; --resume
goes on, with a lower --rate if one is given.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.cli import BAD_INPUT, DONE, INTERRUPTED
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.generate import decimal, whole
from triplaneturbo.distill.corpora.prompt_list import read_file, split
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import OPTIMIZERS, PRESETS, TUNINGS, FinetuneConfig
from triplaneturbo.finetune.duration import SHOWN, estimate
from triplaneturbo.finetune.run import RUNS, SHEET, Report, Run
from triplaneturbo.models.catalog import ModelFiles, base_or_default, find_model
from triplaneturbo.request import shown
from triplaneturbo.serving.preflight import check_process

if TYPE_CHECKING:
    from triplaneturbo.utils.distributed import DistributedContext


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. What they may hold is checked by Order."""
    add = parser.add_argument
    add("--prompts", metavar="FILE", help=".txt, .csv, .json or .jsonl")
    add("--corpus", metavar="FILE", help="very many prompts, streamed: also .parquet; for the full model")
    add("--column", metavar="NAME", help="of a table, or the key of a list")
    add("--name", metavar="NAME", help="of the adapter: a-z, 0-9, - and _; default: from FILE's name")
    add("--resume", action="store_true", help="go on with the run of that name")
    add("--preset", default="try", metavar="|".join(PRESETS), help="how long; default try, under 5 minutes")
    add("--steps", type=whole, metavar="N", help="optimiser steps; default: the preset's")
    add("--batch", type=whole, metavar="N", help="prompts a step and process; default: the preset's")
    add("--rate", type=decimal, metavar="R", help="the highest learning rate; default: the preset's")
    add(
        "--held-out",
        type=decimal,
        default=0.0,
        metavar="SHARE",
        help="of --prompts, for judging; default 0. Of a corpus, eight prompts",
    )
    add(
        "--from", dest="start", default="", metavar="ADAPTER", help="of the library; default: the model's own"
    )
    add("--teachers", default="", metavar="A,B", help="default: all that the model has")
    add(
        "--tuning",
        default="peta",
        metavar="|".join(TUNINGS),
        help="what learns; lora and full begin from nothing; default peta",
    )
    add("--rank", type=whole, default=0, metavar="N", help="of a new adapter; default: the model's own")
    add("--denoising-steps", type=whole, default=0, metavar="K", help="default: the model's own")
    add("--scored", type=whole, metavar="N", help="of the K steps; 0: all; default: the preset's")
    add("--renderings", default="volume,surface", metavar="A,B", help="volume, surface or both, the default")
    add("--optimizer", metavar="|".join(OPTIMIZERS), help="default: the preset's")
    add("--seed", type=whole, default=0, metavar="N")
    add("--preview-every", type=whole, metavar="N", help="steps between pictures, 0: none")
    add("--embeddings", default="", metavar="FOLDER", help="that the command embed has made")
    add("--tensorboard", action="store_true", help="log for TensorBoard, too")
    add_model_flags(parser)
    add(
        "--memory",
        type=decimal,
        metavar="GB",
        help="of the device, for the full model; default: what is free of it",
    )
    add("--runs", default=str(RUNS), metavar="FOLDER", help="where runs lie; default outputs/runs")
    add("--quiet", action="store_true", help="no progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Begin a run or go on with one, and put what was learned into the library."""
    check_process()
    if arguments.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out.")
    draft = None if arguments.resume else _draft(arguments)
    name = draft.name if draft else _name(arguments)
    folder = Path(arguments.runs) / name
    if draft is None:
        Run.open(folder)
    elif (folder / "order.json").exists():
        raise UserError(
            f"There is a run {name} already: go on with it (--resume), remove {folder}, or give another"
            " --name."
        )

    from triplaneturbo.utils.devices import choose_device
    from triplaneturbo.utils.distributed import CollectiveError, is_launched, launched

    shared = is_launched(os.environ)
    device = choose_device(arguments.device).device
    found = find_model(arguments.model, device.type == "cuda", base_or_default(arguments.base))
    with launched(os.environ, device.type if shared else str(device)) as team:
        if team.is_main_process:
            _set_out(arguments, draft, folder, found, team)
        team.wait()
        try:
            return _train(arguments, Run.open(folder), found, team)
        except CollectiveError:
            if team.is_main_process:
                raise
            return BAD_INPUT


def _set_out(
    arguments: argparse.Namespace,
    draft: FinetuneConfig | None,
    folder: Path,
    found: ModelFiles,
    team: DistributedContext,
) -> None:
    """Begin the run, or change what one that goes on may have anew; tell what it will take.

    Raises:
        UserError: it cannot be, or it does not fit; nothing is begun then.
    """
    from triplaneturbo.models.config import GeneratorConfig
    from triplaneturbo.models.convert import convert_if_needed

    convert_if_needed(found)
    config = GeneratorConfig.load(found.folder)
    if draft is None:
        run = Run.open(folder)
        run.change(arguments.rate, arguments.memory)
        order = run.order
    else:
        order = _order(arguments, draft, found, config.world)
    if not config.world:
        from triplaneturbo.finetune.memory_plan import full_plan

        _say(arguments, full_plan(order, found, config, team.device).table())
    if draft is not None:
        Run.begin(folder, order)
        _say(arguments, estimate(order, config.world).sentence)


def _draft(arguments: argparse.Namespace) -> FinetuneConfig:
    """What is asked for, as far as it can be checked before the model is known.

    Raises:
        UserError: something of it cannot be.
    """
    if (arguments.prompts is None) == (arguments.corpus is None):
        raise UserError("Give either --prompts FILE or --corpus FILE; see --help.")
    if arguments.preset not in PRESETS:
        raise UserError(f"There is no preset {shown(arguments.preset)}: choose from {', '.join(PRESETS)}.")
    if arguments.corpus is not None and arguments.held_out:
        raise UserError("--held-out is a share of --prompts; of a corpus eight prompts are held out anyway.")
    chosen: dict[str, Any] = {field: getattr(arguments, flag) for field, flag in _PRESET.items()}
    learned: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    if arguments.prompts is not None:
        listed = read_file(Path(arguments.prompts), arguments.column)
        for line in (listed.summary, *listed.notes):
            _say(arguments, line)
        learned, held = split(listed.prompts, arguments.held_out, arguments.seed)
    order = FinetuneConfig(
        name=_name(arguments),
        prompts=learned,
        held_out=held,
        corpus=arguments.corpus or "",
        column=(arguments.column or "") if arguments.corpus else "",
        memory=arguments.memory or 0.0,
        embeddings=arguments.embeddings,
        teachers=_several(arguments.teachers),
        start=arguments.start,
        tuning=arguments.tuning,
        rank=arguments.rank,
        steps=arguments.denoising_steps,
        renderings=_several(arguments.renderings),
        seed=arguments.seed,
        **{key: value for key, value in chosen.items() if value is not None},
    )
    order.check()
    return order


def _order(
    arguments: argparse.Namespace, draft: FinetuneConfig, found: ModelFiles, world: bool
) -> FinetuneConfig:
    """The whole order, its blanks filled in by the preset, without prompts that the model cannot express.

    Args:
        world: whether the model is one of the small world.

    Raises:
        UserError: none is left, or the model has no such teacher or learns from no corpus.
    """
    from dataclasses import replace

    from triplaneturbo.finetune.setup import check_fit
    from triplaneturbo.toyworld.captions.advice import misfits

    check_fit(draft, world, found.name)
    asked = {field: getattr(draft, field) for field, flag in _PRESET.items() if _is_given(arguments, flag)}
    order = replace(draft, **(PRESETS[arguments.preset](world) | asked))
    wrong = misfits(order.prompts + order.held_out) if world else {}
    if wrong:
        told = "; ".join(f"{shown(prompt)}, {why}" for prompt, why in wrong.items())
        _say(arguments, f"The model's world cannot express {len(wrong)} of the prompts, left out: {told}")
        order = replace(
            order,
            prompts=tuple(prompt for prompt in order.prompts if prompt not in wrong),
            held_out=tuple(prompt for prompt in order.held_out if prompt not in wrong),
        )
    if order.corpus:
        from triplaneturbo.distill.corpora.corpus import hold_out

        held, others = hold_out(Path(order.corpus), order.column or None, SHOWN)
        order = replace(order, held_out=tuple(held), preview_prompts=tuple([*held, *others][:SHOWN]))
        _say(arguments, f"{len(held)} prompts of the corpus are held out for judging.")
    order.check()
    return order


def _train(arguments: argparse.Namespace, run: Run, found: ModelFiles, team: DistributedContext) -> int:
    """Do the run to its end, or until it is interrupted; then keep what was learned."""
    from triplaneturbo.finetune.runner import train
    from triplaneturbo.utils.kernels import announced_on_stderr

    go_on = f"python -m triplaneturbo finetune --resume --name {run.order.name}"
    reports = train(run, found, team.device, team)
    stopped = False
    with _stopping() as asked, announced_on_stderr(arguments.quiet or not team.is_main_process):
        shows = _shown(arguments, run, reports) if team.is_main_process else reports
        for _ in shows:
            if asked():
                stopped = True
                break
        reports.close()
    if not team.is_main_process:
        return INTERRUPTED if stopped else DONE
    if stopped:
        at = run.status
        print(
            f"Stopped after step {at['iteration']} of {at['iterations']}; what was learned is kept. Go on"
            f" with {go_on}",
            file=sys.stderr,
        )
        return INTERRUPTED
    from triplaneturbo.finetune.evaluation import told

    path = run.keep()
    for line in told(run.scores() or {}):
        print(line)
    sheet = path.with_name(SHEET)
    if sheet.exists():
        print(f"before and after: {sheet}")
    print(f'{path}: python -m triplaneturbo generate "..." --adapter {run.order.name}')
    return DONE


def _shown(arguments: argparse.Namespace, run: Run, reports: Iterator[Report]) -> Iterator[Report]:
    """The reports, each shown on a progress bar and, if asked for, to TensorBoard."""
    from tqdm import tqdm

    board = None
    if arguments.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(str(run.folder / "tensorboard"))
    hidden = arguments.quiet or not sys.stderr.isatty()
    with tqdm(
        total=run.order.iterations, initial=run.status["iteration"], unit="step", disable=hidden
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


@contextmanager
def _stopping() -> Iterator[Any]:
    """While it is entered, a first Ctrl-C is noted and no more, and a second one interrupts.

    Gives a function that says whether there was one. A step is not to be torn: it takes seconds.
    """
    before = signal.getsignal(signal.SIGINT)
    noted: list[int] = []

    def note(number: int, _frame: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)
        print("\nStopping after this step; press again to stop at once.", file=sys.stderr)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


# Of an order's fields, those that a preset fills in, and the flags that say otherwise.
_PRESET = {
    "iterations": "steps",
    "batch": "batch",
    "rate": "rate",
    "optimizer": "optimizer",
    "scored": "scored",
    "preview_every": "preview_every",
}


def _name(arguments: argparse.Namespace) -> str:
    """The name that was given, or one made from that of the file."""
    if arguments.name is not None:
        return arguments.name
    file = arguments.prompts or arguments.corpus
    if not file:
        raise UserError("Give the --name of the run to go on with.")
    return re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-")[:64] or "mine"


def _is_given(arguments: argparse.Namespace, flag: str) -> bool:
    return getattr(arguments, flag) is not None


def _several(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _say(arguments: argparse.Namespace, line: str) -> None:
    if not arguments.quiet:
        print(line, file=sys.stderr)
