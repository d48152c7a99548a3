"""Per-scene random streams: each scene of a batch draws from its own generator.

The random numbers of a scene do not depend on the rest of its batch or on its process: two processes with n
scenes each compute the same as one process with 2 n scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

# One generator for all rows, or one per scene, which draws the rows of that scene.
RandomStreams: TypeAlias = torch.Generator | Sequence[torch.Generator]


def streams(seed: Sequence[int], scenes: range) -> list[torch.Generator]:
    """Create a CPU generator per scene, which depends only on the seed and the scene's index.

    Args:
        seed: non-negative integers.
        scenes: indices of the scenes.
    """
    states = [np.random.SeedSequence(seed, spawn_key=(k,)).generate_state(1, np.uint64)[0] for k in scenes]
    return [torch.Generator().manual_seed(int(state) >> 1) for state in states]


def normal(rng: RandomStreams, shape: Sequence[int]) -> Tensor:
    """Draw standard normal numbers [R, ...] on the device of `rng`.

    With several generators, each draws an equal share of the R rows, in order.
    """
    return _by_rows(
        rng, shape, lambda rows, one: torch.randn(rows, generator=one, device=one.device)
    )  # fmt: skip


def uniform(rng: RandomStreams, shape: Sequence[int]) -> Tensor:
    """Draw uniform numbers [R, ...] from [0, 1), as in `normal`."""
    return _by_rows(rng, shape, lambda rows, one: torch.rand(rows, generator=one, device=one.device))


def randint(rng: RandomStreams, low: int, high: int, count: int) -> Tensor:
    """Draw integers [count] from [low, high), as in `normal`."""
    return _by_rows(
        rng, (count,), lambda rows, one: torch.randint(low, high, rows, generator=one, device=one.device)
    )  # fmt: skip


def _by_rows(
    rng: RandomStreams, shape: Sequence[int], draw: Callable[[tuple[int, ...], torch.Generator], Tensor]
) -> Tensor:
    if isinstance(rng, torch.Generator):
        return draw(tuple(shape), rng)
    rows, remainder = divmod(shape[0], len(rng))
    if remainder:
        raise ValueError(f"{shape[0]} rows are not divisible by {len(rng)} scenes")
    return torch.cat([draw((rows, *shape[1:]), one) for one in rng])
