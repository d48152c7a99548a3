"""Score distillation: ASD, SDS, CSD, VSD and ISM gradients of a teacher on renderings.

All variants compare two noise predictions for a noisy rendering, g = w (sigma_t / alpha_t) (first - second).
The first is the teacher's prediction with guidance; the second is

    asd   the conditional prediction at a later t + delta, for the same noise (PRD, arXiv 2503.21694, 3.2)
    sds   the noise itself (DreamFusion, arXiv 2209.14988)
    csd   the unconditional prediction (Classifier Score Distillation, arXiv 2310.19415)
    vsd   the prediction of a critic trained on the student's renderings (ProlificDreamer, arXiv 2305.16213)
    ism   the unconditional prediction at an earlier t - interval, on the path of DDIM inversion, which
          replaces random noise (LucidDreamer, arXiv 2311.11284)

and w is the weight of DMD (arXiv 2311.18828), 1 with the weighting "level" (as in LucidDreamer), or that of
DMD for each pixel.
docs/teachers.md, "Score distillation", describes the released code of ASD; its differences from the paper are
options here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.distill.settings import interpolate
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import alpha_sigma
from triplaneturbo.teachers.settings import Kind, ShiftLevel, TeacherSettings, Weighting
from triplaneturbo.utils.random_streams import RandomStreams, normal, randint, uniform


@dataclass(frozen=True)
class ScoreSettings:
    """Options of one score distillation gradient.

    Attributes:
        kind: the variant; see the module's docstring.
        guidance: scale of classifier-free guidance; at 1 the unconditional prediction is skipped.
        shift: upper bound of delta as a fraction of t - low (ASD's eta); 0 for both predictions at t.
        shift_level: noise level of ASD's second prediction in the gradient: "t", that of the first one, as in
            the released code, or "own", that of t + delta, as in Eq. 1 of the paper. Equal if `shift` is 0.
        low, high: timesteps are drawn from [low, high).
        weight: factor on the gradient.
        weighting: w: "dmd", the inverse of the mean error of the prediction; "level", 1, so that only the
            noise level sigma / alpha weights the gradient; or "pixel", the inverse of each pixel's error, so
            that the loss is about linear in large errors, and sharp edges cost no more than smeared ones.
        contrast: weight of details: w grows by this factor times the distance of a pixel of the prediction
            from its neighbourhood; for teachers of images [B, n, C, H, W].
        clean_weight: compute w from the clean rendering, as the released code does, not from the noisy one.
        sum_scenes: sum over scenes, as the released code does, instead of the mean.
        stride, interval: "ism" only: step size of DDIM inversion and of its last step, in timesteps.
    """

    kind: Kind = "asd"
    guidance: float = 1.0
    shift: float = 0.1
    shift_level: ShiftLevel = "t"
    low: int = 20
    high: int = 980
    weight: float = 1.0
    weighting: Weighting = "dmd"
    contrast: float = 0.0
    clean_weight: bool = False
    sum_scenes: bool = False
    stride: int = 200
    interval: int = 50

    @classmethod
    def of(cls, teacher: TeacherSettings, progress: float, **given: Any) -> ScoreSettings:
        """Create the settings of a teacher's score at a position in its schedules, 0 to 1.

        Args:
            given: values that `TeacherSettings` does not have, or that replace its own.
        """
        own = {
            field.name: getattr(teacher, field.name) for field in fields(cls) if hasattr(teacher, field.name)
        }
        return cls(**own | {"guidance": interpolate(teacher.guidance, progress)} | given)


class Critic(Protocol):
    """Predicts the noise in the student's renderings; see `distill/critic.py`."""

    def predict(self, noisy: Tensor, times: Tensor, condition: Any) -> Tensor:
        """Predict the noise in [B, n, ...] at timesteps [B]."""
        ...

    def accumulate(self, z: Tensor, condition: Any, rng: RandomStreams) -> float:
        """Accumulate the gradients of the critic's loss on renderings z [B, n, ...]; return the loss."""
        ...


@dataclass(frozen=True)
class Draws:
    """Random draws of a score: timesteps [B], noise [B, n, ...] and, for "asd", later timesteps [B]."""

    times: Tensor
    noise: Tensor
    later: Tensor


@dataclass(frozen=True)
class Gradients:
    """Gradients by name of the `Renderings` field, and the mean error of the teacher's first prediction."""

    by_field: dict[str, Tensor]
    error: float


def shift_timesteps(times: Tensor, settings: ScoreSettings, last: int, rng: RandomStreams) -> Tensor:
    """Return t + delta for timesteps [B]: delta = u * shift * (t - low), u uniform; at most `last`."""
    max_delta = (last - times).clamp_min(0)
    delta = torch.minimum((settings.shift * (times - settings.low)).clamp_min(0), max_delta.float())
    u = uniform(rng, times.shape).to(times.device)
    return (times + (u * delta).long()).clamp(1, last)


def draw(z: Tensor, settings: ScoreSettings, last: int, rng: RandomStreams) -> Draws:
    """Draw timesteps up to `last` and noise for z [B, n, ...], on the generator's own device."""
    times = randint(rng, settings.low, settings.high, len(z)).to(z.device)
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
    """Compute the gradient of a teacher's score distillation loss on the renderings; frees its graph.

    The loss is sum(z g) for encoded renderings z and g as above, averaged over scenes and the teacher's
    views.

    Args:
        rng: draws timesteps, noise, shifts and what `encode` samples; on the CPU, so that results do not
            depend on the device.
        critic: required for "vsd"; its gradients are accumulated.
    """
    leaves = {name: getattr(seen, name).detach().requires_grad_() for name in teacher.reads}
    z = teacher.encode(replace(seen, **leaves), scenes, rng)  # [B, n, ...]
    with torch.no_grad():
        condition = teacher.condition(seen, scenes)
        draws = draw(z.detach(), settings, len(teacher.alphas) - 1, rng)
        g, error = direction(teacher, z.detach(), condition, settings, draws, critic)
    if critic is not None:
        critic.accumulate(z.detach(), condition, rng)
    share = settings.weight / (z.shape[1] if settings.sum_scenes else z.shape[0] * z.shape[1])
    scaled = g * share
    # Normalize to about 1 for the backward pass, so that small values do not underflow in float16.
    power = torch.exp2(-torch.log2(scaled.abs().amax().clamp_min(1e-30)).floor())
    gradients = torch.autograd.grad((z * (scaled * power)).sum(), leaves.values())
    return Gradients({name: part / power for name, part in zip(leaves, gradients, strict=True)}, error)


@torch.no_grad()
def direction(
    teacher: Teacher,
    z: Tensor,
    condition: Any,
    settings: ScoreSettings,
    draws: Draws,
    critic: Critic | None = None,
) -> tuple[Tensor, float]:
    """Return g for z [B, n, ...], in the same shape, and the mean error of the first prediction.

    Raises:
        ValueError: if the kind is "vsd" and `critic` is None.
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
        if settings.shift_level == "own":
            # The noise at t whose clean estimate (z_t - sigma_t eps) / alpha_t is that of the prediction at
            # t + delta, z + (s / a) (noise - second).
            second = draws.noise + (s / a) / (sigma / alpha) * (second - draws.noise)
    x_first = ((z if settings.clean_weight else noisy) - sigma * first) / alpha
    errors = (z - x_first).abs()
    error = errors.flatten(2).mean(2)  # [B, n]
    g = (sigma / alpha) * (first - second)
    if settings.weighting == "dmd":
        weight = 1 / (error + 0.1)
        g = g * weight.view(*error.shape, *[1] * (z.ndim - 2))
    elif settings.weighting == "pixel":
        g = g / (errors.mean(2, keepdim=True) + 0.05)
    if settings.contrast:
        g = g * (1 + settings.contrast * _local_contrast(x_first))
    return g.nan_to_num(), float(error.mean())


def _local_contrast(images: Tensor) -> Tensor:
    """Return each pixel's distance from the mean of its 7 x 7 neighbourhood, the largest of all channels.

    Args:
        images: [B, n, C, H, W].

    Returns:
        [B, n, 1, H, W].
    """
    flat = images.flatten(0, 1)
    padded = F.pad(flat, (3, 3, 3, 3), mode="replicate")
    blurred = F.avg_pool2d(F.avg_pool2d(padded, (7, 1), stride=1), (1, 7), stride=1)
    return (flat - blurred).abs().amax(1, keepdim=True).unflatten(0, images.shape[:2])


def _inverted(
    teacher: Teacher, z: Tensor, times: Tensor, condition: Any, settings: ScoreSettings
) -> tuple[Tensor, Tensor]:
    """Invert z [B, n, ...] to timesteps [B] by unconditional DDIM; return it and the last noise."""
    empty = teacher.unconditional(condition)

    def unconditional(x: Tensor, at: Tensor) -> Tensor:
        return teacher.predict(x, at, empty, False)[0]

    turning_point = (times - settings.interval).clamp_min(0)  # start of the last step
    at = torch.zeros_like(times)
    clean, noise = z, unconditional(z, at)
    while bool((at < turning_point).any()):
        arrived = (at == turning_point).view(-1, *[1] * (z.ndim - 1))  # finished scenes stay unchanged
        at = torch.minimum(at + settings.stride, turning_point)
        alpha, sigma = alpha_sigma(teacher.alphas, at, z)
        x = alpha * clean + sigma * noise
        noise = torch.where(arrived, noise, unconditional(x, at))
        clean = torch.where(arrived, clean, (x - sigma * noise) / alpha)
    alpha, sigma = alpha_sigma(teacher.alphas, times, z)
    return alpha * clean + sigma * noise, noise
