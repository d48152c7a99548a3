"""Each scene has random numbers of its own, whatever else is in its batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from triplaneturbo.utils.random_streams import RandomStreams, normal, randint, streams, uniform

SEED = (3, 12)
DRAWS: list[Callable[[RandomStreams, int], Tensor]] = [
    lambda rng, rows: normal(rng, (rows, 5, 7)),
    lambda rng, rows: uniform(rng, (rows, 3)),
    lambda rng, rows: randint(rng, -4, 900, rows),
]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("rows", [1, 3])
def test_scene_draws_do_not_depend_on_the_batch(
    draw: Callable[[RandomStreams, int], Tensor], rows: int
) -> None:
    all_four = streams(SEED, range(4))
    later = streams(SEED, range(2, 4))
    for _ in range(2):  # streams go on
        together, apart = draw(all_four, 4 * rows), draw(later, 2 * rows)
        assert torch.equal(together[2 * rows :], apart)
        assert len(together.flatten(1).unique(dim=0) if together.ndim > 1 else together.unique()) == 4 * rows


@pytest.mark.parametrize("draw", DRAWS)
def test_single_stream_matches_torch(draw: Callable[[RandomStreams, int], Tensor]) -> None:
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    plain = {
        3: torch.randn(2, 5, 7, generator=other),
        2: torch.rand(2, 3, generator=other.manual_seed(5)),
        1: torch.randint(-4, 900, (2,), generator=other.manual_seed(5)),
    }
    found = draw(one, 2)
    assert torch.equal(found, plain[found.ndim])


def test_streams_differ_by_seed_iteration_and_scene() -> None:
    seeds = [(0, 0), (0, 1), (1, 0), (1, 1)]
    first = [float(normal([stream], (1,))) for seed in seeds for stream in streams(seed, range(3))]
    assert len(set(first)) == 12


def test_draws_have_their_distributions() -> None:
    rng = streams(SEED, range(4))
    noise = normal(rng, (4, 20_000))
    assert noise.mean(1).abs().max() < 0.03
    assert (noise.std(1) - 1).abs().max() < 0.03
    assert abs(float(torch.corrcoef(noise).fill_diagonal_(0).abs().max())) < 0.03
    share = uniform(rng, (4, 20_000))
    assert 0 <= float(share.min()) < 0.001
    assert 0.999 < float(share.max()) < 1
    picked = torch.stack([randint(rng, 2, 5, 4) for _ in range(200)])
    assert picked.unique().tolist() == [2, 3, 4]


def test_rows_not_divisible_by_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows are not divisible by 2 scenes"):
        normal(streams(SEED, range(2)), (5, 3))
