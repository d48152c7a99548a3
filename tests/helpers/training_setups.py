"""The training setup of a run with the toy model: a whole run takes a second."""

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

MODEL_FILES = ModelFiles("toy", SMALL, "for a test")
CONFIG = FinetuneConfig(
    "mine", prompts=toy.CAPTIONS, iterations=4, batch=2, preview_every=2, optimizer="adamw"
)


def setup_toy(
    config: FinetuneConfig, model_files: ModelFiles, context: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """Replace `prepare.prepare`."""
    yield "rendering the toys"
    settings = replace(
        toy.SETTINGS,
        iterations=config.iterations,
        batch=config.batch,
        learning_rate=config.learning_rate,
        tuning=config.tuning,
    )
    with torch.random.fork_rng():
        student = toy.student(settings)
    model_config = replace(student.generator.config, grid_resolution=24)
    return TrainingSetup(
        student, model_config, toy.teachers(), toy.draw, settings, None, {"prompts": "a hash"}, folder
    )  # fmt: skip
