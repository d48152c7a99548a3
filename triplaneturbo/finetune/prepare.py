"""Set-up of a run by the domain of its model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.domain_training import training_of
from triplaneturbo.finetune.setup import TrainingSetup, check_fit
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
        UserError: if the model cannot express a prompt, a file is missing or broken, or the model does not
            have a requested teacher.
    """
    config = GeneratorConfig.load(model_files.folder)
    domain = find_domain(config.domain)
    check_fit(run_config, domain, model_files.name)
    return (yield from training_of(domain).setup(run_config, model_files, config, context, folder))
