"""Score distillation: what a teacher would have changed in a rendering, as a gradient on that rendering.

All of them compare two predictions of the noise in one noisy rendering, g = w (sigma_t / alpha_t) (first -
second); the first is the teacher's with guidance, the second is

    asd   the teacher's with the caption at a later t + delta, for the same noise (PRD, CVPR 2025, 3.2)
    sds   the noise itself (DreamFusion, arXiv 2209.14988)
    csd   the teacher's without the caption (Classifier Score Distillation, arXiv 2310.19415)
    vsd   that of a critic which learns what the student renders (ProlificDreamer, arXiv 2305.16213)
    ism   the teacher's without the caption at an earlier t - interval, on the path of DDIM inversion, which
          takes the place of the noise (LucidDreamer, arXiv 2311.11284)

and w is DMD's weight for each. facts/teachers.md 6 has the released code of ASD, whose differences are
settings here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.teachers.closed_form import alpha_sigma
from triplaneturbo.utils.random_streams import RandomStreams, normal, uniform, whole

Kind = Literal["asd", "sds", "csd", "vsd", "ism"]


@dataclass(frozen=True)
class ScoreSettings:
    """How a teacher's opinion becomes a gradient.

    Attributes:
        kind: what the teacher's prediction is compared with; see above.
        guidance: scale of classifier-free guidance; 1 asks for no prediction without the caption.
        shift: delta is at most this share of t - low (ASD's eta); 0: both predictions are made at t.
        low, high: timesteps are drawn from [low, high).
        weight: of this teacher.
        clean_weight: w(t) from the clean rendering, as the released code has it, and not from the noisy one.
        sum_scenes: the sum over scenes and not their mean, likewise.
        stride, interval: of "ism", in timesteps: of the path from nothing to t - interval, and its last step.
    """

    kind: Kind = "asd"
    guidance: float = 1.0
    shift: float = 0.1
    low: int = 20
    high: int = 980
    weight: float = 1.0
    clean_weight: bool = False
    sum_scenes: bool = False
    stride: int = 200
    interval: int = 50


class Critic(Protocol):
    """Predicts the noise in what the student renders; see `distill/critic.py`."""

    def predict(self, noisy: Tensor, times: Tensor, condition: Any) -> Tensor:
        """The noise in [B, n, ...] at timesteps [B]."""
        ...

    def accumulate(self, z: Tensor, condition: Any, rng: RandomStreams) -> float:
        """Gather what is to be learned from a rendering, z [B, n, ...]; returns the loss."""
        ...


@dataclass(frozen=True)
class Draws:
    """What chance gives a score: timesteps [B], the noise [B, n, ...], and asd's later timesteps [B]."""

    times: Tensor
    noise: Tensor
    later: Tensor


@dataclass(frozen=True)
class Gradients:
    """Gradients on what was seen, by the name of `Renderings`'s field, and the mean error that w(t) saw."""

    by_field: dict[str, Tensor]
    error: float


def shift_timesteps(times: Tensor, settings: ScoreSettings, last: int, rng: RandomStreams) -> Tensor:
    """t + delta for timesteps [B]: delta = u * shift * (t - low), u uniform; whole, at most `last`."""
    room = (last - times).clamp_min(0)
    furthest = torch.minimum((settings.shift * (times - settings.low)).clamp_min(0), room.float())
    u = uniform(rng, times.shape).to(times.device)
    return (times + (u * furthest).long()).clamp(1, last)


def draw(z: Tensor, settings: ScoreSettings, last: int, rng: RandomStreams) -> Draws:
    """Timesteps up to `last`, and noise for z [B, n, ...], drawn where `chance` lives."""
    times = whole(rng, settings.low, settings.high, len(z)).to(z.device)
    noise = normal(rng, z.shape).to(z)
    later = times
    if settings.kind == "asd" and settings.shift != 0:
        later = shift_timesteps(times, settings, last, rng)
    return Draws(times, noise, later)


def score_gradients(
    teacher: Teacher,
    seen: Renderings,
    scenes: SceneBatch,
    settings: ScoreSettings,
    rng: RandomStreams,
    critic: Critic | None = None,
) -> Gradients:
    """The gradient of a teacher's score distillation loss on the renderings, its graph freed at once.

    The loss is sum(z g) with z what the teacher diffuses and g as above, in the mean over scenes and over the
    teacher's views.

    Args:
        chance: draws timesteps, noise, shifts and what `encode` samples; on the CPU, so that a run does
            not depend on the device.
        critic: of "vsd"; it gathers what it is to learn from these renderings.
    """
    leaves = {name: getattr(seen, name).detach().requires_grad_() for name in teacher.reads}
    z = teacher.encode(replace(seen, **leaves), scenes, rng)  # [B, n, ...]
    with torch.no_grad():
        told = teacher.condition(seen, scenes)
        draws = draw(z.detach(), settings, len(teacher.alphas) - 1, rng)
        g, error = direction(teacher, z.detach(), told, settings, draws, critic)
    if critic is not None:
        critic.accumulate(z.detach(), told, rng)
    share = settings.weight / (z.shape[1] if settings.sum_scenes else z.shape[0] * z.shape[1])
    push = g * share
    # Its largest number becomes about one on the way: float16 has no room for those far below it.
    power = torch.exp2(-torch.log2(push.abs().amax().clamp_min(1e-30)).floor())
    found = torch.autograd.grad((z * (push * power)).sum(), leaves.values())
    return Gradients({name: part / power for name, part in zip(leaves, found, strict=True)}, error)


@torch.no_grad()
def direction(
    teacher: Teacher,
    z: Tensor,
    condition: Any,
    settings: ScoreSettings,
    draws: Draws,
    critic: Critic | None = None,
) -> tuple[Tensor, float]:
    """g for z [B, n, ...], the same shape, and the mean of what w(t) was computed from.

    Raises:
        ValueError: "vsd" is asked for without a critic.
    """
    times = draws.times
    alpha, sigma = alpha_sigma(teacher.alphas, times, z)
    if settings.kind == "ism":
        noisy, second = _inverted(teacher, z, times, condition, settings)
    else:
        noisy, second = alpha * z + sigma * draws.noise, draws.noise
    text, free = teacher.predict(noisy, times, condition, settings.guidance != 1 or settings.kind == "csd")
    first = text if free is None else free + settings.guidance * (text - free)
    if settings.kind == "csd":
        assert free is not None
        second = free
    elif settings.kind == "vsd":
        if critic is None:
            raise ValueError("vsd needs a critic")
        second = critic.predict(noisy, times, condition)
    elif settings.kind == "asd" and settings.shift == 0:
        second = text
    elif settings.kind == "asd":
        a, s = alpha_sigma(teacher.alphas, draws.later, z)
        second, _ = teacher.predict(a * z + s * draws.noise, draws.later, condition, False)
    x_first = ((z if settings.clean_weight else noisy) - sigma * first) / alpha
    error = (z - x_first).abs().flatten(2).mean(2)  # [B, n]
    weight = 1 / (error + 0.1)
    g = (sigma / alpha) * (first - second) * weight.view(*error.shape, *[1] * (z.ndim - 2))
    return g.nan_to_num(), float(error.mean())


def _inverted(
    teacher: Teacher, z: Tensor, times: Tensor, condition: Any, settings: ScoreSettings
) -> tuple[Tensor, Tensor]:
    """z [B, n, ...] brought to `times` [B] by DDIM inversion without the caption, and its last noise."""

    def free(x: Tensor, at: Tensor) -> Tensor:
        noise = teacher.predict(x, at, condition, True)[1]
        assert noise is not None
        return noise

    turn = (times - settings.interval).clamp_min(0)  # where the last step begins
    at = torch.zeros_like(times)
    clean, noise = z, free(z, at)
    while bool((at < turn).any()):
        there = (at == turn).view(-1, *[1] * (z.ndim - 1))  # scenes that have arrived stay as they are
        at = torch.minimum(at + settings.stride, turn)
        alpha, sigma = alpha_sigma(teacher.alphas, at, z)
        x = alpha * clean + sigma * noise
        noise = torch.where(there, noise, free(x, at))
        clean = torch.where(there, clean, (x - sigma * noise) / alpha)
    alpha, sigma = alpha_sigma(teacher.alphas, times, z)
    return alpha * clean + sigma * noise, noise
