"""Matching loss: how far renderings are from the distribution that a score network knows.

Path-Tracing Distillation (section 3 and appendices G, H) compares the network's score of a noisy rendering
with a Stable Target Field estimate (arXiv 2302.00670) from n samples of that network,

    L(x_t) = E | s(x_t, t, y) - s_approx(x_t) |                                      (Eq. 5)
    s_approx(x_t) = sum_i w_i grad log p(x_t | ref_i)                                (Eq. 11)
    w_i = p(x_t | ref_i) / sum_j p(x_t | ref_j)
    grad log p(x_t | ref) = -(x_t - alpha ref) / sigma^2

The rendering itself is among the references. The norm is the root mean square over the elements, so that
losses of different image sizes compare. The loss measures whether the network is reliable there, not quality:
a grey sphere scores well.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import alpha_sigma, posterior_mean
from triplaneturbo.utils.random_streams import RandomStreams, normal, randint

_FIRST = 20  # smallest timestep


@dataclass(frozen=True)
class MatchingLoss:
    """Mean matching losses by thirds of the timesteps, from little to much noise."""

    thirds: tuple[float, float, float]

    @property
    def mean(self) -> float:
        """Mean over all timesteps."""
        return fmean(self.thirds)


def stable_target(noisy: Tensor, alpha: Tensor, sigma: Tensor, references: Tensor) -> Tensor:
    """Return the Stable Target Field estimate of the score (Eq. 11), in the shape of `noisy`.

    Args:
        noisy: alpha x0 + sigma noise [B, ...].
        alpha, sigma: broadcastable to `noisy`, constant within a row.
        references: reference samples of each row, flattened [B, R, D].
    """
    return -(noisy - alpha * posterior_mean(noisy, alpha, sigma, references)) / sigma**2


@torch.no_grad()
def matching_loss(
    teacher: Teacher, z: Tensor, condition: Any, references: Tensor, rng: RandomStreams, draws: int = 8
) -> MatchingLoss:
    """Return the matching loss of encoded renderings under a teacher.

    Args:
        teacher: its conditional prediction is measured, without guidance.
        z: encoded renderings [B, n, ...].
        condition: the teacher's conditioning for these B rows.
        references: samples of the teacher for the same conditioning [R, n, ...]; see `sample`.
        rng: draws timesteps and noise.
        draws: timesteps per rendering and third.
    """
    own = z.flatten(1)[:, None]  # [B, 1, D]
    everything = torch.cat((references.flatten(1).expand(len(z), -1, -1), own), 1)  # [B, R + 1, D]
    last = len(teacher.alphas)
    edges = [_FIRST + (last - _FIRST) * third // 3 for third in range(4)]
    thirds = []
    for low, high in pairwise(edges):
        losses = []
        for _ in range(draws):
            times = randint(rng, low, high, len(z)).to(z.device)
            noise = normal(rng, z.shape).to(z)
            alpha, sigma = alpha_sigma(teacher.alphas, times, z)
            noisy = alpha * z + sigma * noise
            score = -teacher.predict(noisy, times, condition, False)[0] / sigma
            error = score - stable_target(noisy, alpha, sigma, everything)
            losses.append(float(error.flatten(1).square().mean(1).sqrt().mean()))
        thirds.append(fmean(losses))
    return MatchingLoss((thirds[0], thirds[1], thirds[2]))


@torch.no_grad()
def sample(
    teacher: Teacher, like: Tensor, condition: Any, rng: RandomStreams, steps: int = 50, guidance: float = 1.0
) -> Tensor:
    """Sample from a teacher by DDIM (arXiv 2010.02502).

    Args:
        like: gives the shape [B, n, ...] and the device.
        condition: the teacher's conditioning for these B rows.
        rng: draws the initial noise.
        steps: number of steps.
        guidance: scale of classifier-free guidance; 1 for none.

    Returns:
        Samples in the teacher's diffusion space [B, n, ...].
    """
    x = normal(rng, like.shape).to(like)
    last = len(teacher.alphas) - 1
    times = torch.linspace(last, 0, steps + 1).round().long().tolist()
    for at, after in pairwise(times):
        now = torch.full((len(x),), at, device=x.device)
        text, free = teacher.predict(x, now, condition, guidance != 1)
        noise = text if free is None else free + guidance * (text - free)
        alpha, sigma = alpha_sigma(teacher.alphas, now, x)
        clean = (x - sigma * noise) / alpha
        alpha, sigma = alpha_sigma(teacher.alphas, torch.full_like(now, after), x)
        x = alpha * clean + sigma * noise
    return clean
