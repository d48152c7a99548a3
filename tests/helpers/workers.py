"""What processes of their own do in tests: runs of the toy, alone or as one of several.

They are forked from a server that has imported everything once (`forked`), as importing takes longer than
training does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from tests.helpers import toy
from triplaneturbo.distill import prd
from triplaneturbo.distill.settings import Settings, TeacherSettings
from triplaneturbo.errors import UserError
from triplaneturbo.utils.distributed import DistributedContext, launched

# Whatever draws random numbers is in it.
SETTINGS = replace(
    toy.SETTINGS, iterations=6, rate=1e-3, scored=1, stride=2, surface_stride=2,
    teachers={
        **toy.SETTINGS.teachers,
        "sd": TeacherSettings(kind="vsd", share=0.5, renderings=("volume",)),
    },
)  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")


def forked(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A started process that calls a function of a module; it has one thread."""
    _CONTEXT.set_forkserver_preload(["tests.helpers.workers"])
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def train(
    folder: Path,
    settings: Settings = SETTINGS,
    team: DistributedContext | None = None,
    stuck: int = -1,
    mad: int = 99,
) -> None:
    """Do or go on with a run of the toy; each iteration's log goes to a file for each process.

    Args:
        stuck: the last process stands still before this iteration.
        mad: how many answers the last process's teacher of colours gives before it tells nonsense.
    """
    torch.set_num_threads(1)
    student = toy.student()
    team = team or DistributedContext()
    colors, normals = toy.teachers()
    if team.rank == team.size - 1:
        colors = toy.Broken("predict", mad)
    teachers = [colors, normals, toy.diffusion(student)]
    trainer = prd.Trainer(team, student, teachers, toy.draw, settings, folder, save_every=2)
    logs = folder / f"log-{team.rank}-of-{team.size}.jsonl"
    while not trainer.finished:
        if trainer.iteration == stuck and team.rank == team.size - 1:
            (folder / "stuck").write_text(str(os.getpid()))
            time.sleep(3600)  # until it is killed
        log = {"iteration": trainer.iteration, **trainer.step()}
        with logs.open("a") as file:
            file.write(json.dumps(log) + "\n")


def die_writing(folder: Path, write: int) -> None:
    """The same, killed in the middle of that file which it writes, counted from 1."""
    real, calls = os.fsync, iter(range(1, write + 1))

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if next(calls) == write:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
    train(folder)


def member(rank: int, size: int, port: int, folder: Path, settings: Settings, *how: int) -> None:
    """One of several processes that train; its environment is what a launcher gives it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
    try:
        with launched(os.environ) as team:
            train(folder, settings, team, *how)
    except UserError as error:
        (folder / f"told-{os.environ['RANK']}").write_text(str(error))
        raise SystemExit(1) from None
