"""`DomainTraining`: how runs of a domain are set up, planned, estimated and judged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from triplaneturbo.domains.domain import Domain, import_attribute
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.finetune.judge import RunJudge
from triplaneturbo.finetune.memory_plan import PlanRun
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.utils.distributed import DistributedContext

Setup = Callable[
    [FinetuneConfig, ModelFiles, GeneratorConfig, DistributedContext, Path],
    Generator[str, None, TrainingSetup],
]


@dataclass(frozen=True)
class DomainTraining:
    """The training of a domain.

    Attributes:
        setup: set up a run, see `prepare.prepare`; yields progress messages and returns the setup.
        judge: make the judge of a run from its setup and the evaluated prompts.
        estimate: estimate the duration and memory of a run of a model with so many denoising steps.
        plan: plan the memory of a run, see `memory_plan.full_plan`; None if runs always fit.
    """

    setup: Setup
    judge: Callable[[TrainingSetup, Sequence[str]], RunJudge]
    estimate: Callable[[FinetuneConfig, int], Estimate]
    plan: PlanRun | None = None


def training_of(domain: Domain) -> DomainTraining:
    """Import and return the training of a domain."""
    training: DomainTraining = import_attribute(domain.training_source)
    return training
