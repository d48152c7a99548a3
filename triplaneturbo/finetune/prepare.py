"""Set-up of a run by kind of model: toy-world models and the full model have different teachers."""

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
    run_config: FinetuneConfig, model_files: ModelFiles, context: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """Set up a run; a generator that yields progress messages and returns the setup.

    Args:
        run_config: options of the run.
        model_files: files of the model.
        context: processes of the run.
        folder: folder of the run; rendered views and cleaned prompts are kept there.

    Raises:
        UserError: if the toy world cannot express a prompt, a file is missing or broken, or the model does
            not have a requested teacher.
    """
    config = GeneratorConfig.load(model_files.folder)
    check_fit(run_config, config.domain, model_files.name)
    if config.world:
        return (yield from setup_toyworld(run_config, model_files, config, context, folder))
    return (yield from setup_full(run_config, model_files, config, context, folder))
