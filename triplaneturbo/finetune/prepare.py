"""Set up a run: the small world's models and the full one learn from different teachers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import TrainingSetup, check_fit
from triplaneturbo.finetune.setup_full import setup_full
from triplaneturbo.finetune.setup_toyworld import setup_toyworld
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.utils.distributed import DistributedContext


def prepare(
    order: FinetuneConfig, found: ModelFiles, team: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """Set up a run for its kind of model; yield what is being done between the pieces of that work.

    Args:
        folder: of the run; what has to be drawn or cleaned is kept there.

    Raises:
        UserError: prompts that the model's world cannot express, a file that is missing or broken, or a
            teacher that the model does not have.
    """
    config = GeneratorConfig.load(found.folder)
    check_fit(order, config.world, found.name)
    if config.world:
        return (yield from setup_toyworld(order, found, config, team, folder))
    return (yield from setup_full(order, found, config, team, folder))
