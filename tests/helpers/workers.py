"""Subprocesses of tests: runs of the toy problem with one or several processes.

They are forked from a server that has imported everything once (`forked`), because imports take longer than
training.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from tests.helpers import toy
from tests.helpers.killing import kill_at_write
from triplaneturbo.distill import prd
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.distributed import DistributedContext, launched

# Includes every component that draws random numbers.
SETTINGS = replace(
    toy.SETTINGS, iterations=6, learning_rate=1e-3, scored_steps=1, stride=2, surface_stride=2,
    teachers={
        **toy.SETTINGS.teachers,
        "sd": TeacherSettings(kind="vsd", share=0.5, renderings=("volume",)),
    },
)  # fmt: skip
_CONTEXT = multiprocessing.get_context("forkserver")


def forked(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a single-threaded process that calls a module-level function."""
    _CONTEXT.set_forkserver_preload(["tests.helpers.workers"])
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def train(
    folder: Path,
    settings: Settings = SETTINGS,
    context: DistributedContext | None = None,
    stuck: int = -1,
    mad: int = 99,
) -> None:
    """Run or resume the toy problem; log each iteration to one file per process.

    Args:
        stuck: the last process hangs before this iteration.
        mad: number of answers of the last process's colour teacher before it returns non-finite values.
    """
    torch.set_num_threads(1)
    student = toy.student()
    context = context or DistributedContext()
    colors, normals = toy.teachers()
    if context.rank == context.size - 1:
        colors = toy.Broken("predict", mad)
    teachers = [colors, normals, toy.diffusion(student)]
    trainer = prd.Trainer(context, student, teachers, toy.draw, settings, folder, save_every=2)
    logs = folder / f"log-{context.rank}-of-{context.size}.jsonl"
    while not trainer.finished:
        if trainer.iteration == stuck and context.rank == context.size - 1:
            (folder / "stuck").write_text(str(os.getpid()))
            time.sleep(3600)  # until it is killed
        log = {"iteration": trainer.iteration, **trainer.step()}
        with logs.open("a") as file:
            file.write(json.dumps(log) + "\n")


def die_writing(folder: Path, write: int) -> None:
    """Run `train`, killed while it writes the given file, counted from 1."""
    kill_at_write(write)
    train(folder)


def member(rank: int, size: int, port: int, folder: Path, settings: Settings, *how: int) -> None:
    """Run `train` as one of several processes, with the environment of a launcher."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
    try:
        with launched(os.environ) as context:
            train(folder, settings, context, *how)
    except UserError as error:
        (folder / f"error-{os.environ['RANK']}").write_text(str(error))
        raise SystemExit(1) from None
