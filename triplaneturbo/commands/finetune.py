"""fine-tune the model on prompts of your own; an adapter in the library comes of it

    python -m triplaneturbo finetune --prompts mine.txt --name mine
    python -m triplaneturbo generate "a small red cactus" --adapter mine

FILE holds a prompt a line (.txt, with templates such as "a {red|blue} {animal}" and {animal: cat, dog} on a line
of its own), or is a .csv, .json or .jsonl; --corpus streams one of any length. Ctrl-C saves; --resume goes on.
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

from triplaneturbo.commands import DONE, INTERRUPTED
from triplaneturbo.commands.generate import decimal, whole
from triplaneturbo.distill.order import OPTIMIZERS, PRESETS, TUNINGS, Order
from triplaneturbo.distill.prompts import read_file, split
from triplaneturbo.distill.run import RUNS, Report, Run
from triplaneturbo.errors import UserError
from triplaneturbo.library import ADAPTERS
from triplaneturbo.models import Found, base_or_default, find_model
from triplaneturbo.request import shown

if TYPE_CHECKING:
    from triplaneturbo.parallel import Team


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. What they may hold is checked by Order."""
    add = parser.add_argument
    add("--prompts", metavar="FILE", help=".txt, .csv, .json or .jsonl")
    add("--corpus", metavar="FILE", help="very many prompts, streamed: also .parquet; for the full model")
    add("--column", metavar="NAME", help="of a table, or the key of a list")
    add("--name", metavar="NAME", help="of the adapter: a-z, 0-9, - and _; default: from FILE's name")
    add("--resume", action="store_true", help="go on with the run of that name")
    add("--preset", default="try", metavar="|".join(PRESETS), help="how long; default try, about 5 minutes")
    add("--steps", type=whole, metavar="N", help="optimiser steps; default: the preset's")
    add("--batch", type=whole, metavar="N", help="prompts a step and process; default: the preset's")
    add("--rate", type=decimal, metavar="R", help="the highest learning rate; default: the preset's")
    add("--held-out", type=decimal, default=0.0, metavar="SHARE", help="of the prompts, for judging; default 0")
    add("--from", dest="start", default="", metavar="ADAPTER", help="of the library; default: the model's own")
    add("--teachers", default="", metavar="A,B", help="default: all that the model has")
    add("--tuning", default="peta", metavar="|".join(TUNINGS), help="what learns; default peta")
    add("--rank", type=whole, default=0, metavar="N", help="of a new adapter; default: the model's own")
    add("--denoising-steps", type=whole, default=0, metavar="K", help="default: the model's own")
    add("--scored", type=whole, metavar="N", help="of the K steps; 0: all; default: the preset's")
    add("--renderings", default="volume,surface", metavar="A,B", help="volume, surface or both, the default")
    add("--optimizer", metavar="|".join(OPTIMIZERS), help="default: the preset's")
    add("--seed", type=whole, default=0, metavar="N")
    add("--preview-every", type=whole, metavar="N", help="steps between pictures, 0: none")
    add("--embeddings", default="", metavar="FOLDER", help="that the command embed has made")
    add("--tensorboard", action="store_true", help="log for TensorBoard, too")
    add("--model", default="auto", metavar="NAME", help="auto, small, full, a folder or a hub id; default auto")
    add("--base", metavar="FOLDER", help="Stable Diffusion 2.1-base for the full model; default: the hub's")
    add("--device", metavar="NAME", help="cpu, cuda, ...; default: the best there is")
    add("--runs", default=str(RUNS), metavar="FOLDER", help="where runs lie; default outputs/runs")
    add("--quiet", action="store_true", help="no progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Begin a run or go on with one, and put what was learned into the library."""
    if arguments.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed: pip install tensorboard, or leave --tensorboard out.")
    draft = None if arguments.resume else _draft(arguments)
    name = draft.name if draft else _name(arguments)
    folder = Path(arguments.runs) / name
    if draft is None:
        Run.open(folder)
    elif (folder / "order.json").exists():
        raise UserError(
            f"There is a run {name} already: go on with it (--resume), remove {folder}, or give another --name."
        )

    from triplaneturbo.devices import choose_device
    from triplaneturbo.parallel import is_launched, launched

    shared = is_launched(os.environ)
    device = choose_device(arguments.device).device
    found = find_model(arguments.model, device.type == "cuda", base_or_default(arguments.base))
    with launched(os.environ, device.type if shared else str(device)) as team:
        if draft is not None and team.leads:
            order = _order(arguments, draft, found)
            Run.begin(folder, order)
        team.wait()
        return _train(arguments, Run.open(folder), found, team)


def _draft(arguments: argparse.Namespace) -> Order:
    """What is asked for, as far as it can be checked before the model is known.

    Raises:
        UserError: something of it cannot be.
    """
    if (arguments.prompts is None) == (arguments.corpus is None):
        raise UserError("Give either --prompts FILE or --corpus FILE; see --help.")
    if arguments.preset not in PRESETS:
        raise UserError(f"There is no preset {shown(arguments.preset)}: choose from {', '.join(PRESETS)}.")
    chosen: dict[str, Any] = {
        "iterations": arguments.steps,
        "batch": arguments.batch,
        "rate": arguments.rate,
        "optimizer": arguments.optimizer,
        "scored": arguments.scored,
        "preview_every": arguments.preview_every,
    }
    learned, held = (), ()
    if arguments.prompts is not None:
        listed = read_file(Path(arguments.prompts), arguments.column)
        for line in (listed.summary, *listed.notes):
            _say(arguments, line)
        learned, held = split(listed.prompts, arguments.held_out, arguments.seed)
    order = Order(
        name=_name(arguments),
        prompts=learned,
        held_out=held,
        corpus=arguments.corpus or "",
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
