"""What the runs of an ablation take: memory and hours of the full model, minutes of the built-in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.evaluate.ablation_tables import PROPOSED_STEPS
from triplaneturbo.finetune.domain_training import training_of
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.utils.durations import format_estimate

# The paper (section 4.1): 15,000 iterations of K = 4 take 40 hours on eight H20 GPUs.
_PAPER_SECONDS = 40 * 3600 / 15_000


def plan(
    runs: Sequence[AblationRun], model_files: ModelFiles, config: GeneratorConfig, device: torch.device
) -> Iterator[str]:
    """Yield a description of each variant and of the total.

    Raises:
        UserError: a run does not fit into memory.
    """
    first_seed = [run for run in runs if run.seed == runs[0].seed]
    seeds = len(runs) // len(first_seed)
    total = 0.0
    training = training_of(find_domain(config.domain))
    for run in first_seed:
        iterations, steps = run.config.iterations, run.variant.steps
        if training.plan is None:
            # The prompts share a few solids, so that rendering them takes next to nothing.
            seconds = training.estimate(replace(run.config, prompts=()), config.steps).seconds or 0.0
            duration = format_estimate(seconds)
            yield f"{run.variant.name}: {iterations:,} iterations, {duration} on two idle cores"
        else:
            seconds = iterations * _PAPER_SECONDS * steps / PROPOSED_STEPS
            try:
                memory = training.plan(run.config, model_files, config, device)
            except UserError as error:
                raise UserError(f"The run {run.variant.name} cannot start: {error}") from None
            yield f"{run.variant.name}: {iterations:,} iterations, {seconds / 3600:.1f} h on eight H20 GPUs"
            yield memory.table()
        total += seconds
    duration = (
        f"{format_estimate(seeds * total)} on two idle cores"
        if training.plan is None
        else f"{seeds * total / 3600:,.0f} h on eight H20 GPUs, at the paper's speed"
    )
    yield (
        f"{len(first_seed)} runs of {seeds} seed{'' if seeds == 1 else 's'} each:"
        f" {duration}, without the scores."
    )
