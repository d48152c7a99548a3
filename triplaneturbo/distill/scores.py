"""Score distillation: what a teacher would have changed in a rendering, as a gradient on that rendering.

Asynchronous Score Distillation (ASD): the teacher denoises the same noise twice, at t with guidance and at a
later t + delta without it; the difference takes the place of the second, fine-tuned network of variational
score distillation. g = w (sigma_t / alpha_t) (eps_guided(x_t) - eps_text(x_t+delta)). PRD, CVPR 2025, 3.2;
facts/teachers.md 6 has the released code, whose differences are settings here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from triplaneturbo.teachers.base import Scenes, Seen, Teacher
from triplaneturbo.teachers.closed_form import levels

Kind = Literal["asd", "sds"]


@dataclass(frozen=True)
class ScoreSettings:
    """How a teacher's opinion becomes a gradient.

    Attributes:
        kind: "asd", or "sds" (the second prediction is the noise itself).
        guidance: scale of classifier-free guidance; 1 asks for no prediction without the caption.
        shift: delta is at most this share of t - low (ASD's eta); 0: both predictions are made at t.
        low, high: timesteps are drawn from [low, high).
        weight: of this teacher.
        clean_weight: w(t) from the clean rendering, as the released code has it, and not from the noisy one.
    """

    kind: Kind = "asd"
    guidance: float = 1.0
    shift: float = 0.1
    low: int = 20
    high: int = 980
    weight: float = 1.0
    clean_weight: bool = False


@dataclass(frozen=True)
class Gradients:
    """Gradients on what was seen, by the name of `Seen`'s field, and the mean error that w(t) saw."""

    by_field: dict[str, Tensor]
    error: float


def shifted(times: Tensor, settings: ScoreSettings, last: int, generator: torch.Generator) -> Tensor:
    """t + delta for timesteps [B]: delta = u * shift * (t - low), u uniform; whole, at most `last`."""
    room = (last - times).clamp_min(0)
    furthest = torch.minimum((settings.shift * (times - settings.low)).clamp_min(0), room.float())
    u = torch.rand(times.shape, generator=generator).to(times.device)
    return (times + (u * furthest).long()).clamp(1, last)


def score_gradients(
    teacher: Teacher, seen: Seen, scenes: Scenes, settings: ScoreSettings, generator: torch.Generator
) -> Gradients:
    """The gradient of a teacher's score distillation loss on the renderings, its graph freed at once.

    The loss is sum(z g) with z what the teacher diffuses and g as above, in the mean over scenes and over the
    teacher's views.

    Args:
        generator: draws timesteps, noise, shifts and what `encode` samples; on the CPU, so that a run does
            not depend on the device.
    """
    leaves = {name: getattr(seen, name).detach().requires_grad_() for name in teacher.reads}
    z = teacher.encode(replace(seen, **leaves), scenes, generator)  # [B, n, ...]
    with torch.no_grad():
        g, error = direction(teacher, z.detach(), teacher.condition(seen, scenes), settings, generator)
    gradients = torch.autograd.grad(
        (z * g).sum() * (settings.weight / (z.shape[0] * z.shape[1])), leaves.values()
    )
    return Gradients(dict(zip(leaves, gradients, strict=True)), error)


@torch.no_grad()
def direction(
    teacher: Teacher, z: Tensor, condition: object, settings: ScoreSettings, generator: torch.Generator
) -> tuple[Tensor, float]:
    """g for z [B, n, ...], the same shape, and the mean of what w(t) was computed from."""
    times = torch.randint(settings.low, settings.high, (len(z),), generator=generator).to(z.device)
    noise = torch.randn(z.shape, generator=generator).to(z)
    alpha, sigma = levels(teacher.alphas, times, z)
    noisy = alpha * z + sigma * noise
    text, free = teacher.predict(noisy, times, condition, settings.guidance != 1)
    first = text if free is None else free + settings.guidance * (text - free)
    if settings.kind == "sds":
        second = noise
    elif settings.shift == 0:
        second = text
    else:
        later = shifted(times, settings, len(teacher.alphas) - 1, generator)
        a, s = levels(teacher.alphas, later, z)
        second, _ = teacher.predict(a * z + s * noise, later, condition, False)
    x_first = ((z if settings.clean_weight else noisy) - sigma * first) / alpha
    error = (z - x_first).abs().flatten(2).mean(2)  # [B, n]
    weight = 1 / (error + 0.1)
    g = (sigma / alpha) * (first - second) * weight.view(*error.shape, *[1] * (z.ndim - 2))
    return g.nan_to_num(), float(error.mean())
