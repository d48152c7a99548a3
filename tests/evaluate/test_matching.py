"""The matching loss against closed-form teachers, which are its exact oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.seeded import seeded
from tests.helpers.toy import data
from triplaneturbo.evaluate.matching import matching_loss, sample, stable_target
from triplaneturbo.teachers.closed_form import ClosedFormRGB, ReferenceImages, alpha_sigma
from triplaneturbo.toyworld.training.sizes import make_scheduler

ALPHAS = make_scheduler().alphas_cumprod
SHAPE = (2, 1, 3, 8, 8)


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, *SHAPE[1:], generator=seeded(seed)) * 2 - 1


def teacher() -> ClosedFormRGB:
    return ClosedFormRGB(ALPHAS, data)


def knowing(*sets: Tensor) -> ReferenceImages:
    """Return the condition under which the teacher's data are these images, the same for both rows."""
    everything = torch.cat([one.flatten(1) for one in sets])
    return ReferenceImages(everything.expand(SHAPE[0], -1, -1), None)


@pytest.mark.parametrize("time", [30, 300, 700, 990])
def test_the_estimate_is_the_score_of_the_closed_form(time: int) -> None:
    references, x = images(20, 0), torch.randn(SHAPE, generator=seeded(1))
    times = torch.full((2,), time)
    alpha, sigma = alpha_sigma(ALPHAS, times, x)
    expected = -teacher().predict(x, times, knowing(references), False)[0] / sigma
    estimate = stable_target(x, alpha, sigma, references.flatten(1).expand(2, -1, -1))
    torch.testing.assert_close(estimate, expected, rtol=1e-4, atol=1e-4)
    naive = torch.stack([-(x - alpha * one) / sigma**2 for one in references])  # [R, B, ...]
    logs = torch.stack([-((x - alpha * one).square().flatten(1).sum(1)) for one in references])
    weights = torch.softmax(logs / (2 * sigma.flatten(1)[:, 0] ** 2), 0)
    torch.testing.assert_close(estimate, torch.einsum("rb,rb...->b...", weights, naive), rtol=1e-3, atol=1e-3)


def test_a_teacher_that_knows_the_rendering_matches() -> None:
    z, references = images(2, 2)[:1].expand(SHAPE), images(20, 0)
    known = matching_loss(teacher(), z, knowing(references, z[:1]), references, seeded())
    assert max(known.thirds) < 1e-4


def test_out_of_distribution_renderings_are_told_apart_most_at_little_noise() -> None:
    references = images(20, 0)
    condition = knowing(references)
    losses = []
    for distance in (0.1, 1.0):
        z = (references[:2] + distance * images(2, 3)).view(SHAPE)
        losses.append(matching_loss(teacher(), z, condition, references, seeded()))
    near, far = losses
    assert far.mean > 2 * near.mean
    assert far.thirds[0] > far.thirds[1] > far.thirds[2]


def test_samples_of_a_closed_form_are_its_images() -> None:
    references = images(3, 0)
    found = sample(teacher(), torch.zeros(SHAPE), knowing(references), seeded())
    distance = (found[:, None] - references[None]).flatten(2).square().mean(2).amin(1)
    assert distance.max() < 1e-3
