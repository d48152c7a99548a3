"""Bootstrap confidence intervals of means over prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_BATCH = 500  # resamples at a time: 500 x 10,000 prompts take 40 MB


@dataclass(frozen=True)
class Interval:
    """A mean and the limits of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: np.ndarray, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of one value per prompt with its percentile bootstrap interval.

    Prompts are resampled, not views or seeds: those of one prompt are not independent. The generator's
    seed is fixed, so the same values give the same interval.

    Args:
        values: one value per prompt [P], P >= 1.
        resamples: number of resamples.
    """
    rng = np.random.default_rng(0)
    count = len(values)
    means = [
        values[rng.integers(count, size=(min(_BATCH, resamples - start), count))].mean(1)
        for start in range(0, resamples, _BATCH)
    ]
    low, high = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(values.mean()), float(low), float(high))
