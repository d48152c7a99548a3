"""Closed-form teachers against Bayes' rule, numerical integration and the score of the log density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from triplaneturbo.models.schedule import shifted_timesteps
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.closed_form import ClosedFormGeometry, ClosedFormRGB, alpha_sigma, posterior_mean
from triplaneturbo.toyworld.training.sizes import make_scheduler

ALPHAS = torch.tensor([0.98, 0.7, 0.3, 0.02], dtype=torch.float64)


class Shelf:
    """Random images [I, V, H, W, 3] by caption, the same for every scene."""

    def __init__(self, captions: Sequence[str], instances: int, views: int, side: int) -> None:
        draw = torch.Generator().manual_seed(3)
        shape = (instances, views, side, side, 3)
        self.pictures = {text: torch.rand(shape, generator=draw, dtype=torch.float64) for text in captions}

    def __call__(
        self, captions: Sequence[str], scenes: SceneBatch, seen: Renderings, reads: tuple[str, ...]
    ) -> list[Renderings]:
        assert reads == ("rgb",)
        rgb = torch.stack([self.pictures[text] for text in captions], 1)  # [I, B, V, H, W, 3]
        return [Renderings(one, torch.ones(one.shape[:-1])) for one in rgb]

    def data(self, *captions: str) -> Tensor:
        """Encoded images of captions, one row per image [I, V * 3 * H * W]."""
        return torch.cat([self.pictures[text] for text in captions]).movedim(-1, 2).flatten(1) * 2 - 1


def scenes(prompts: list[str], views: int) -> SceneBatch:
    cameras = orbit(torch.arange(len(prompts) * views) * 40.0, 20.0, 2.5)
    return SceneBatch(prompts, cameras, views, torch.ones(len(prompts), 3))


def nothing_seen(where: SceneBatch, side: int) -> Renderings:
    shape = (len(where.prompts), where.views, side, side)
    return Renderings(torch.zeros(*shape, 3, dtype=torch.float64), torch.zeros(shape))


def bayes(noisy: Tensor, kept: float, data: Tensor) -> Tensor:
    """Return E[x0 | noisy] for one scene in scalar arithmetic: noisy [D], data [I, D]."""
    a, s = math.sqrt(kept), math.sqrt(1 - kept)
    exponents = [
        -sum((float(x) - a * float(y)) ** 2 for x, y in zip(noisy, row, strict=True)) for row in data
    ]
    best = max(exponents)
    weights = [math.exp((e - best) / (2 * s * s)) for e in exponents]
    return sum(w * row for w, row in zip(weights, data, strict=True)) / sum(weights)


def test_posterior_mean_matches_the_integral() -> None:
    data = np.array([-0.8, -0.1, 0.05, 0.9])
    x0 = np.linspace(-1.5, 1.5, 60001)
    narrow = 2e-3  # width of the data points' densities, for numerical integration
    prior = np.exp(-((x0[:, None] - data) ** 2) / (2 * narrow**2)).sum(1)
    for kept in (0.9, 0.5, 0.05):
        a, s = math.sqrt(kept), math.sqrt(1 - kept)
        for noisy in (-1.2, -0.4, 0.0, 0.3, 2.0):
            belief = prior * np.exp(-((noisy - a * x0) ** 2) / (2 * s**2))
            expected = (x0 * belief).sum() / belief.sum()
            actual = posterior_mean(
                torch.full((1, 1), noisy, dtype=torch.float64),
                torch.full((1, 1), a, dtype=torch.float64),
                torch.full((1, 1), s, dtype=torch.float64),
                torch.from_numpy(data)[None, :, None],
            )
            assert abs(actual.item() - expected) < 1e-4


@pytest.mark.parametrize("time", range(len(ALPHAS)))
def test_noise_matches_bayes_rule(time: int) -> None:
    shelf = Shelf(["a", "b", "c"], instances=3, views=2, side=2)
    teacher = ClosedFormRGB(ALPHAS, shelf, world=["a", "b", "c"])
    where = scenes(["b", "a"], 2)
    condition = teacher.condition(nothing_seen(where, 2), where)
    noisy = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    times = torch.tensor([time, (time + 1) % len(ALPHAS)])
    text, free = teacher.predict(noisy, times, condition, True)
    assert free is not None
    assert torch.equal(teacher.predict(noisy, times, teacher.unconditional(condition), False)[0], free)
    for i, caption in enumerate(where.prompts):
        kept = float(ALPHAS[times[i]])
        flat = noisy[i].flatten()
        for actual, data in ((text, shelf.data(caption)), (free, shelf.data("a", "b", "c"))):
            expected = (flat - math.sqrt(kept) * bayes(flat, kept, data)) / math.sqrt(1 - kept)
            torch.testing.assert_close(actual[i].flatten(), expected)


def test_noise_is_the_scaled_score() -> None:
    shelf = Shelf(["a"], instances=4, views=1, side=1)
    teacher = ClosedFormRGB(ALPHAS, shelf)
    where = scenes(["a"], 1)
    condition = teacher.condition(nothing_seen(where, 1), where)
    data = shelf.data("a")  # [4, 3]
    for time, kept in enumerate(ALPHAS.tolist()):
        noisy = math.sqrt(kept) * data.mean(0) + math.sqrt(1 - kept) * torch.randn(3, dtype=torch.float64)

        def log_density(x: Tensor, kept: float = kept) -> Tensor:
            return (-(x - math.sqrt(kept) * data).square().sum(1) / (2 * (1 - kept))).logsumexp(0)

        step = 1e-5
        slope = torch.stack(
            [
                (log_density(noisy + move) - log_density(noisy - move)) / (2 * step)
                for move in step * torch.eye(3, dtype=torch.float64)
            ]
        )
        actual, free = teacher.predict(noisy.view(1, 1, 3, 1, 1), torch.tensor([time]), condition, False)
        assert free is None
        torch.testing.assert_close(actual.flatten(), -math.sqrt(1 - kept) * slope, rtol=1e-6, atol=1e-7)


def test_guidance_needs_unconditional_captions() -> None:
    teacher = ClosedFormRGB(ALPHAS, Shelf(["a"], 2, 1, 1))
    where = scenes(["a"], 1)
    condition = teacher.condition(nothing_seen(where, 1), where)
    with pytest.raises(ValueError, match="world"):
        teacher.predict(torch.zeros(1, 1, 3, 1, 1), torch.tensor([1]), condition, True)
    with pytest.raises(ValueError, match="world"):
        teacher.unconditional(condition)


def test_variants_choose_among_the_caption_s_images_only() -> None:
    shelf = Shelf(["a", "b"], 3, 1, 2)

    def data(captions: Sequence[str], scenes: SceneBatch, *rest: Any) -> list[Renderings]:
        images = shelf(captions, scenes, *rest)
        return images if scenes.variants is None else images[1:2]

    where = replace(scenes(["a"], 1), variants=torch.tensor([0]))
    condition = ClosedFormRGB(ALPHAS, data, ["a", "b"]).condition(nothing_seen(where, 2), where)
    assert torch.equal(condition.caption[0], shelf.data("a")[1:2])
    assert condition.world is not None
    assert torch.equal(condition.world[0], shelf.data("a", "b"))


@pytest.mark.parametrize("time", [0, 1, 20, 500, 980, 999])
@pytest.mark.parametrize("apart", [2e-3, 2e-2, 1.0])
def test_exact_in_float32_at_all_timesteps_of_stable_diffusion(time: int, apart: float) -> None:
    """Realistic image sizes, with small and large differences between images."""
    alphas = make_scheduler().alphas_cumprod
    size = 4 * 3 * 32 * 32
    shared = torch.rand(1, 1, size, dtype=torch.float64) * 2 - 1
    data = shared + apart * torch.randn(1, 6, size, dtype=torch.float64) * (torch.rand(1, 6, size) < 0.05)
    times = torch.tensor([time])
    exact = data.mean(1)
    alpha, sigma = alpha_sigma(alphas, times, exact.float())
    noisy = (alpha * exact + sigma * torch.randn(1, size)).float()
    actual = posterior_mean(noisy, alpha, sigma, data.float())
    expected = posterior_mean(noisy.double(), alpha.double(), sigma.double(), data.float().double())
    assert torch.isfinite(actual).all()
    # Relative to the differences between images. (At the lowest noise the last digits decide.)
    assert float((actual - expected).abs().max()) < 2e-3 * apart
    far = posterior_mean(100 * noisy, alpha, sigma, data.float())
    assert torch.isfinite(far).all()
    assert float((noisy - alpha * actual).div(sigma).abs().max()) < 1e4


def test_timesteps_of_the_student_have_finite_levels() -> None:
    scheduler = make_scheduler()
    times = torch.tensor(shifted_timesteps(scheduler, 4))
    alpha, sigma = alpha_sigma(scheduler.alphas_cumprod, times, torch.zeros(4, 2, 3))
    assert alpha.shape == sigma.shape == (4, 1, 1)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(4, 1, 1))
    assert (alpha > 0).all()


def test_scenes_are_independent() -> None:
    shelf = Shelf(["a", "b"], instances=3, views=2, side=3)
    teacher = ClosedFormRGB(ALPHAS, shelf, world=["a", "b"])
    noisy, times = torch.randn(2, 2, 3, 3, 3, dtype=torch.float64), torch.tensor([0, 2])

    def predict(prompts: list[str], rows: slice) -> tuple[Tensor, Tensor | None]:
        where = scenes(prompts, 2)
        return teacher.predict(
            noisy[rows], times[rows], teacher.condition(nothing_seen(where, 3), where), True
        )

    both = predict(["a", "b"], slice(None))
    for i, prompt in enumerate("ab"):
        alone = predict([prompt], slice(i, i + 1))
        for actual, expected in zip(both, alone, strict=True):
            assert actual is not None
            assert expected is not None
            torch.testing.assert_close(actual[i : i + 1], expected)


def test_views_of_a_scene_share_weights() -> None:
    """The first view decides between two images that fit the second view equally well."""
    shelf = Shelf(["a"], instances=2, views=2, side=2)
    teacher = ClosedFormRGB(ALPHAS, shelf)
    where = scenes(["a"], 2)
    condition = teacher.condition(nothing_seen(where, 2), where)
    first, second = shelf.data("a").view(2, 2, 3, 2, 2)
    time, kept = 0, float(ALPHAS[0])
    clean = torch.stack((first[0], (first[1] + second[1]) / 2))
    noise, _ = teacher.predict((math.sqrt(kept) * clean)[None], torch.tensor([time]), condition, False)
    mean = (math.sqrt(kept) * clean - math.sqrt(1 - kept) * noise[0]) / math.sqrt(kept)
    torch.testing.assert_close(mean, first, rtol=1e-6, atol=1e-6)


def test_colours_are_encoded_in_minus_one_to_one() -> None:
    teacher = ClosedFormRGB(ALPHAS, Shelf([], 1, 2, 3))
    where = scenes(["a", "b"], 2)
    rgb = torch.rand(2, 2, 3, 4, 3, requires_grad=True)
    z = teacher.encode(Renderings(rgb, torch.ones(2, 2, 3, 4)), where, torch.Generator())
    assert z.shape == (2, 2, 3, 3, 4)
    torch.testing.assert_close(z[1, 0, 2], rgb[1, 0, ..., 2] * 2 - 1)
    (slope,) = torch.autograd.grad(z.sum(), rgb)
    assert (slope == 2).all()


def test_geometry_encoding_matches_the_multi_view_teacher() -> None:
    teacher = ClosedFormGeometry(ALPHAS, Shelf([], 1, 1, 1))
    where = scenes(["a", "b"], 2)
    toward = where.cameras.c2w[:, :3, 2].view(2, 2, 1, 1, 3).expand(2, 2, 2, 2, 3)
    opacity = torch.ones(2, 2, 2, 2)
    opacity[..., 1] = 0
    seen = Renderings(torch.zeros(2, 2, 2, 2, 3), opacity, 0.3 * toward, torch.full((2, 2, 2, 2), 2.5))
    z = teacher.encode(seen, where, torch.Generator())  # [2, 2, 4, 2, 2]
    facing, middle, background = torch.tensor([0.0, 0, 1]), 0.0, -1.0
    torch.testing.assert_close(z[:, :, :3], facing.view(3, 1, 1).expand(2, 2, 3, 2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(z[:, :, 3, :, 0], torch.full((2, 2, 2), middle), atol=1e-6, rtol=0)
    torch.testing.assert_close(z[:, :, 3, :, 1], torch.full((2, 2, 2), background), atol=1e-6, rtol=0)


def test_geometry_encoding_is_differentiable() -> None:
    teacher = ClosedFormGeometry(ALPHAS, Shelf([], 1, 1, 1))
    where = scenes(["a"], 2)
    shape = (1, 2, 2, 1)
    normal = torch.randn(*shape, 3, dtype=torch.float64, requires_grad=True)
    depth = (2 + torch.rand(shape, dtype=torch.float64)).requires_grad_()
    opacity = (0.3 + 0.6 * torch.rand(shape, dtype=torch.float64)).requires_grad_()

    def encode(normal: Tensor, depth: Tensor, opacity: Tensor) -> Tensor:
        return teacher.encode(Renderings(normal, opacity, normal, depth), where, torch.Generator())

    assert torch.autograd.gradcheck(encode, (normal, depth, opacity))


def test_gradients_are_finite_for_empty_pixels() -> None:
    teacher = ClosedFormGeometry(ALPHAS, Shelf([], 1, 1, 1))
    where = scenes(["a"], 1)
    normal, depth = (
        torch.zeros(1, 1, 2, 2, 3, requires_grad=True),
        torch.zeros(1, 1, 2, 2, requires_grad=True),
    )
    opacity = torch.zeros(1, 1, 2, 2, requires_grad=True)
    z = teacher.encode(Renderings(normal, opacity, normal, depth), where, torch.Generator())
    slopes = torch.autograd.grad((z * torch.randn_like(z)).sum(), (normal, depth, opacity))
    assert all(torch.isfinite(slope).all() for slope in slopes)
