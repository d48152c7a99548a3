"""Critics share their teacher's weights, leave the teacher unchanged, and learn the student's renderings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.seeded import seeded
from tests.helpers.small_stable_diffusion import make, scenes, seen
from tests.helpers.tiny_multi_view import mvdream
from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.loss_scaling import INITIAL_FACTOR
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.utils.distributed import DistributedContext


def four_views() -> tuple[SceneBatch, Renderings]:
    given = SceneBatch(["a", "b"], orbit(torch.arange(8) * 90.0, 10.0, 2.0), 4, torch.ones(2, 3))
    return given, Renderings(torch.rand(2, 4, 16, 16, 3), torch.ones(2, 4, 16, 16))


@pytest.mark.parametrize("kind", ["sd", "mvdream"])
def test_untrained_critic_equals_its_teacher(kind: str) -> None:
    teacher = make()[2] if kind == "sd" else mvdream()
    given, shown = (scenes(), seen()) if kind == "sd" else four_views()
    critic = LoraCritic(teacher)
    condition = teacher.condition(shown, given)
    noisy = torch.randn(2, 1 if kind == "sd" else 4, 4, 8, 8)
    times = torch.tensor([30, 700])
    expected = teacher.predict(noisy, times, condition, False)[0].detach()
    torch.testing.assert_close(critic.predict(noisy, times, condition), expected, rtol=1e-5, atol=1e-5)
    # Each step draws the same noise, so the loss falls.
    z = torch.randn(2, *noisy.shape[1:])
    critic.optimizer.param_groups[0]["lr"] = 1e-2
    losses = []
    for _ in range(12):
        losses.append(critic.accumulate(z, condition, seeded()))
        critic.step(DistributedContext())
    assert losses[-1] < 0.9 * losses[0]
    assert not torch.equal(critic.predict(noisy, times, condition), expected)
    assert torch.equal(teacher.predict(noisy, times, condition, False)[0], expected)


@pytest.mark.parametrize("kind", ["sd", "mvdream"])
def test_critics_know_the_cameras_that_their_teachers_know(kind: str) -> None:
    critic = LoraCritic(make()[2] if kind == "sd" else mvdream())
    given, shown = (scenes(), seen()) if kind == "sd" else four_views()
    turned = replace(given, cameras=orbit(torch.arange(len(given.cameras)) * 90.0 + 30, 40.0, 2.0))
    noisy, times = torch.randn(2, 1 if kind == "sd" else 4, 4, 8, 8), torch.tensor([30, 700])
    one, other = (critic.predict(noisy, times, critic.teacher.condition(shown, at)) for at in (given, turned))
    assert torch.equal(one, other) == (kind == "sd")


def test_critic_shares_weights_and_leaves_the_student_unchanged() -> None:
    generator, merged_lora, teacher = make()
    before = {name: (p.data_ptr(), p.requires_grad) for name, p in generator.named_parameters()}
    with merged_lora.base() as unet:
        places = {p.data_ptr() for p in unet.parameters()}
    merged_lora.merge()  # as in an iteration
    critic = LoraCritic(teacher)
    merged_lora.unmerge()
    _, own = critic.teacher.twin()
    assert all(p.data_ptr() in places for p in own.parameters())
    assert {name: (p.data_ptr(), p.requires_grad) for name, p in generator.named_parameters()} == before


def test_vsd_gradient_is_zero_for_an_untrained_critic() -> None:
    """An untrained critic equals its teacher, so the gradient is zero at guidance 1; then it learns."""
    teacher = make()[2]
    critic = LoraCritic(teacher)
    actual = score_gradients(teacher, seen(), scenes(), ScoreSettings("vsd"), seeded(), critic)
    assert float(actual.by_field["rgb"].abs().max()) < 1e-4
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in critic.parameters)
    for _ in range(4):
        critic.optimizer.param_groups[0]["lr"] = 1e-2
        critic.step(DistributedContext())
        actual = score_gradients(teacher, seen(), scenes(), ScoreSettings("vsd"), seeded(), critic)
    assert float(actual.by_field["rgb"].abs().max()) > 1e-4


def test_gradients_do_not_underflow_in_float16() -> None:
    def gradients(dtype: torch.dtype) -> torch.Tensor:
        torch.manual_seed(0)
        generator, _, teacher = make()
        torch.nn.Module.to(generator.unet, dtype)
        critic = LoraCritic(teacher)
        z = torch.randn(2, 1, 4, 64, 64)
        critic.accumulate(z, teacher.condition(seen(), scenes()), seeded())
        critic.scaler.unscale(critic.parameters)
        return torch.cat([p.grad.flatten() for p in critic.parameters if p.grad is not None])

    exact, half = gradients(torch.float32), gradients(torch.float16)
    assert half.dtype == torch.float32
    assert float((half - exact).norm()) < 0.02 * float(exact.norm())  # 0.3 without loss scaling


def test_step_with_overflowing_gradients_is_skipped() -> None:
    generator, _, teacher = make()
    torch.nn.Module.to(generator.unet, torch.float16)
    critic = LoraCritic(teacher)
    before = [p.detach().clone() for p in critic.parameters]
    for p in critic.parameters:
        p.grad = torch.full_like(p, float("inf"))
    critic.step(DistributedContext())
    assert all(torch.equal(p, q) for p, q in zip(before, critic.parameters, strict=True))
    other = LoraCritic(teacher)
    other.load_state_dict(critic.state_dict())
    assert other.scaler.factor == critic.scaler.factor == INITIAL_FACTOR / 2


def test_critic_resumes_from_its_state() -> None:
    teacher = mvdream()
    given, shown = four_views()
    condition = teacher.condition(shown, given)
    z = torch.randn(2, 4, 4, 8, 8)

    def run(critic: LoraCritic, steps: range) -> LoraCritic:
        for i in steps:
            critic.accumulate(z, condition, seeded(i))
            critic.step(DistributedContext())
        return critic

    torch.manual_seed(1)
    whole = run(LoraCritic(teacher), range(4))
    torch.manual_seed(1)
    half = run(LoraCritic(teacher), range(2))
    other = LoraCritic(teacher)
    other.load_state_dict(half.state_dict())
    run(other, range(2, 4))
    for one, two in zip(whole.parameters, other.parameters, strict=True):
        assert torch.equal(one, two)
