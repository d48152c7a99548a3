"""CLIP score and R@1 of objects from the embeddings of their views and of all prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.evaluate.bootstrap import Interval, bootstrap_mean
from triplaneturbo.evaluate.clip import rank

CLIP_SCORE_WEIGHT = 2.5  # w of CLIPScore (Hessel et al. 2021)


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one object.

    Attributes:
        cosine: cosine similarity of each view and the prompt [V].
        view_ranks: rank of the prompt among all prompts for each view [V]; 0 is a hit.
        object_rank: the same for the mean of the views' unit embeddings.
    """

    cosine: tuple[float, ...]
    view_ranks: tuple[int, ...]
    object_rank: int


def score_object(views: Tensor, gallery: Tensor, right: int) -> ObjectScore:
    """Score an object; ties count against it (see `clip.rank`).

    Args:
        views: unit embeddings of its views [V, E].
        gallery: unit embeddings of all prompts [M, E].
        right: index of its prompt.
    """
    target = torch.full((len(views),), right)
    merged = F.normalize(views.mean(0, keepdim=True), dim=1)
    return ObjectScore(
        cosine=tuple((views @ gallery[right]).tolist()),
        view_ranks=tuple(rank(views, gallery, target).tolist()),
        object_rank=int(rank(merged, gallery, target[:1])),
    )


def summarize(prompts: Sequence[str], scores: Sequence[ObjectScore]) -> dict[str, Interval]:
    """Return the mean of each figure over prompts, with its interval.

    "cosine" is a cosine, "clip_score" is 2.5 max(cosine, 0) x 100, "r_at_1_view" and "r_at_1_object" are
    fractions. All are averaged over views and seeds first, so that every prompt counts equally.

    Args:
        prompts: prompt of each object [N]; objects of several seeds share one.
        scores: their scores [N].
    """
    figures: dict[str, list[float]] = {
        "cosine": [float(np.mean(score.cosine)) for score in scores],
        "clip_score": [
            float(100 * CLIP_SCORE_WEIGHT * np.maximum(score.cosine, 0).mean()) for score in scores
        ],
        "r_at_1_view": [float(np.mean([place == 0 for place in score.view_ranks])) for score in scores],
        "r_at_1_object": [float(score.object_rank == 0) for score in scores],
    }
    return {name: bootstrap_mean(mean_by_prompt(prompts, values)) for name, values in figures.items()}


def mean_by_prompt(prompts: Sequence[str], values: Sequence[float]) -> np.ndarray:
    """Return the mean of the values of each distinct prompt, in order of appearance: float64 [P]."""
    groups: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        groups.setdefault(prompt, []).append(value)
    return np.array([np.mean(group) for group in groups.values()])
