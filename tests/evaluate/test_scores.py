"""CLIP score, R@1 and bootstrap intervals, against slow and readable twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from triplaneturbo.evaluate.bootstrap import bootstrap_mean
from triplaneturbo.evaluate.scores import ObjectScore, mean_by_prompt, score_object, summarize


def test_scores_match_the_slow_twin() -> None:
    gallery, views = F.normalize(torch.randn(30, 8), dim=1), F.normalize(torch.randn(5, 8), dim=1)
    found = score_object(views, gallery, 4)
    mean = sum(views) / 5
    for number, view in enumerate(views):
        cosines = [float(view @ text) for text in gallery]
        assert found.cosine[number] == pytest.approx(cosines[4], abs=1e-6)
        assert found.view_ranks[number] == sum(cosine >= cosines[4] for cosine in cosines) - 1
    cosines = [float(mean @ text / mean.norm()) for text in gallery]
    assert found.object_rank == sum(cosine >= cosines[4] for cosine in cosines) - 1


def test_ties_count_as_misses() -> None:
    gallery = F.normalize(torch.ones(4, 3), dim=1)
    score = score_object(gallery[:2], gallery, 0)
    assert score.view_ranks == (3, 3)
    assert score.object_rank == 3


def test_scores_are_averaged_over_prompts() -> None:
    scores = [
        ObjectScore((0.2, -0.4), (0, 3), 0),
        ObjectScore((0.4, 0.4), (0, 0), 0),  # another seed of the same prompt
        ObjectScore((0.1, 0.3), (2, 1), 5),
    ]
    figures = summarize(["a", "a", "b"], scores)
    assert figures["cosine"].mean == pytest.approx(((-0.1 + 0.4) / 2 + 0.2) / 2)
    assert figures["clip_score"].mean == pytest.approx(250 * ((0.1 + 0.4) / 2 + 0.2) / 2)
    assert figures["r_at_1_view"].mean == pytest.approx((0.75 + 0) / 2)
    assert figures["r_at_1_object"].mean == pytest.approx(0.5)
    assert mean_by_prompt("aba", [1.0, 5.0, 3.0]).tolist() == [2, 5]


def test_intervals_match_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap_mean(values) == found
    one = bootstrap_mean(np.array([0.5]))
    assert (one.mean, one.low, one.high) == (0.5, 0.5, 0.5)


def test_intervals_have_their_coverage() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        interval = bootstrap_mean(rng.random(60), resamples=500)
        covered += interval.low <= 0.5 <= interval.high
    assert 180 <= covered <= 199
