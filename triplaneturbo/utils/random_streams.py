"""Random numbers by scene: each scene of a batch draws from a stream of its own.

A scene then has the same numbers whatever else is in its batch, and in whichever process it is: two processes
with n scenes each compute what one computes with 2 n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

# One stream for whole tensors; or one for each scene, which draws that scene's rows and no others.
RandomStreams: TypeAlias = torch.Generator | Sequence[torch.Generator]


def streams(seed: Sequence[int], scenes: range) -> list[torch.Generator]:
    """A stream on the CPU for each of some scenes, which follows from the seed and the scene's number alone.

    Args:
        seed: whole numbers, none of them negative.
    """
    states = [np.random.SeedSequence(seed, spawn_key=(k,)).generate_state(1, np.uint64)[0] for k in scenes]
    return [torch.Generator().manual_seed(int(state) >> 1) for state in states]


def normal(rng: RandomStreams, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers [R, ...], drawn where `chance` lives.

    Of several streams each draws its share of the R rows, the first one the first rows.
    """
    return _by_rows(
        rng, shape, lambda rows, one: torch.randn(rows, generator=one, device=one.device)
    )  # fmt: skip


def uniform(rng: RandomStreams, shape: Sequence[int]) -> Tensor:
    """Numbers [R, ...] from [0, 1), drawn as in `normal`."""
    return _by_rows(rng, shape, lambda rows, one: torch.rand(rows, generator=one, device=one.device))


def whole(rng: RandomStreams, low: int, high: int, count: int) -> Tensor:
    """Whole numbers [count] from [low, high), drawn as in `normal`."""
    return _by_rows(
        rng, (count,), lambda rows, one: torch.randint(low, high, rows, generator=one, device=one.device)
    )  # fmt: skip


def _by_rows(
    rng: RandomStreams, shape: Sequence[int], draw: Callable[[tuple[int, ...], torch.Generator], Tensor]
) -> Tensor:
    if isinstance(rng, torch.Generator):
        return draw(tuple(shape), rng)
    rows, left = divmod(shape[0], len(rng))
    if left:
        raise ValueError(f"{shape[0]} rows cannot be shared by {len(rng)} scenes")
    return torch.cat([draw((rows, *shape[1:]), one) for one in rng])
