"""Set up a run: the small world's models and the full one learn from different teachers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from triplaneturbo.finetune.config import Order
from triplaneturbo.finetune.setup import Lesson, check_fit
from triplaneturbo.finetune.setup_full import full_lesson
from triplaneturbo.finetune.setup_toyworld import world_lesson
from triplaneturbo.models.catalog import Found
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.utils.distributed import Team


def prepare(order: Order, found: Found, team: Team, folder: Path) -> Generator[str, None, Lesson]:
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
        return (yield from world_lesson(order, found, config, team, folder))
    return (yield from full_lesson(order, found, config, team, folder))
