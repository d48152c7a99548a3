"""A run's lesson in the toy world: all of a run in a second."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import torch

from tests.helpers import toy
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.catalog import SMALL, ModelFiles
from triplaneturbo.utils.distributed import DistributedContext

FOUND = ModelFiles("toy", SMALL, "for a test")
ORDER = FinetuneConfig(
    "mine", prompts=toy.CAPTIONS, iterations=4, batch=2, preview_every=2, optimizer="adamw"
)


def setup_toy(
    order: FinetuneConfig, found: ModelFiles, team: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """In the place of `prepare.prepare`."""
    yield "drawing the toys"
    settings = replace(
        toy.SETTINGS, iterations=order.iterations, batch=order.batch, rate=order.rate, tuning=order.tuning
    )
    with torch.random.fork_rng():
        student = toy.student(settings)
    config = replace(student.generator.config, grid_resolution=24)
    return TrainingSetup(
        student, config, toy.teachers(), toy.draw, settings, None, {"prompts": "a hash"}, folder
    )  # fmt: skip
