"""The runs of an ablation: one per variant and seed, all from a new adapter and on one budget.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.evaluate.ablation_tables import COUNTERPARTS, PROPOSED_STEPS, Variant
from triplaneturbo.finetune.config import NEW_ADAPTER, FinetuneConfig

EQUAL = ("iterations", "passes")


@dataclass(frozen=True)
class Budget:
    """What each run may spend.

    Attributes:
        iterations: optimizer steps of the proposed run.
        batch: prompts per iteration and process.
        learning_rate: maximum learning rate.
        optimizer: "adamw", "soap" or "adan".
        scored_steps: number of the K steps that are scored per iteration; 0 for all.
        equal: "iterations" for the same number in all runs, or "passes" for the same number of U-Net passes,
            so that K = 1 gets four times the iterations of K = 4.
    """

    iterations: int
    batch: int
    learning_rate: float
    optimizer: str
    scored_steps: int
    equal: str = EQUAL[0]

    def iterations_of(self, variant: Variant) -> int:
        """Return the number of iterations of a variant."""
        return self.iterations * (PROPOSED_STEPS // variant.steps if self.equal == "passes" else 1)


# The recipes of the built-in and the full model; see toyworld/training/train.py and distill/recipe.py.
TOYWORLD_BUDGET = Budget(iterations=200, batch=4, learning_rate=2e-3, optimizer="soap", scored_steps=1)
FULL_BUDGET = Budget(iterations=15_000, batch=2, learning_rate=2e-4, optimizer="adan", scored_steps=0)


@dataclass(frozen=True)
class AblationRun:
    """One run: a variant with a seed."""

    variant: Variant
    seed: int
    config: FinetuneConfig

    @property
    def name(self) -> str:
        """Name of the run's folder and adapter."""
        return self.config.name


def make_runs(
    variants: Iterable[Variant], seeds: Sequence[int], budget: Budget, shared: FinetuneConfig, domain: str
) -> list[AblationRun]:
    """Return the runs of all variants and seeds; all variants of the first seed come first.

    Args:
        variants: the variants.
        seeds: seeds of the adapters and of everything that is drawn in training.
        budget: what each run may spend.
        shared: prompts or corpus, and the memory; the other fields are replaced.
        domain: domain of the model.

    Raises:
        UserError: a value of the budget is invalid.
    """
    variants = list(variants)
    runs = [
        AblationRun(variant, seed, _config(variant, seed, budget, shared, domain))
        for seed in seeds
        for variant in variants
    ]
    for run in runs:
        run.config.check_values()
    return runs


def _config(
    variant: Variant, seed: int, budget: Budget, shared: FinetuneConfig, domain: str
) -> FinetuneConfig:
    left_out = COUNTERPARTS[domain].get(variant.without)
    return replace(
        shared,
        name=f"{variant.name}-{seed}",
        iterations=budget.iterations_of(variant),
        batch=budget.batch,
        learning_rate=budget.learning_rate,
        optimizer=budget.optimizer,
        scored_steps=min(budget.scored_steps, variant.steps),
        start=NEW_ADAPTER,
        teachers=tuple(name for name in find_domain(domain).teachers if name != left_out) if left_out else (),
        seed=seed,
        preview_every=0,
        **{"steps": PROPOSED_STEPS, **variant.changes},
    )
