"""Loss scaling: gradients survive float16, steps that overflow are skipped and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.distill.test_student import stirred
from tests.helpers import toy
from tests.helpers.runs import trainer
from triplaneturbo.distill import loss_scaling
from triplaneturbo.distill.loss_scaling import INITIAL_FACTOR, MAX_SKIPPED, LossScaler
from triplaneturbo.errors import UserError


def through_half(scale: LossScaler, weight: nn.Parameter, size: float) -> None:
    """A backward pass whose gradient of `size` goes through float16."""
    scale.up((weight.half().float() * size).sum()).backward()


def test_gradients_too_small_for_float16_survive() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for weight, scale in zip(weights, (LossScaler(on=False), LossScaler(on=True)), strict=True):
        through_half(scale, weight, 1e-9)
        assert scale.down([weight])
    assert weights[0].grad is not None
    assert float(weights[0].grad.abs().max()) == 0
    torch.testing.assert_close(weights[1].grad, torch.full((3,), 1e-9), rtol=1e-3, atol=0)


def test_what_overflows_is_skipped_and_the_factor_finds_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scaling, "GROWTH_INTERVAL", 3)
    scale, weight = LossScaler(on=True), nn.Parameter(torch.ones(3))
    outcomes = []
    for _ in range(6):
        weight.grad = None
        through_half(scale, weight, 16.0)  # 16 * 2^14 is more than 65504, and so is 16 * 2^12
        outcomes.append(scale.down([weight]))
        assert (weight.grad is not None) == outcomes[-1]
    assert outcomes == [False, False, False, True, True, True]
    assert (scale.skipped, scale.factor) == (3, INITIAL_FACTOR / 4)


def test_it_goes_on_from_its_state() -> None:
    scale, weight = LossScaler(on=True), nn.Parameter(torch.ones(3))
    through_half(scale, weight, 1e9)
    assert not scale.down([weight])
    other = LossScaler(on=True)
    other.load(scale.state())
    assert (other.factor, other.skipped, other.state()) == (INITIAL_FACTOR / 2, 1, scale.state())
    exact = LossScaler(on=False)
    exact.load(scale.state())
    assert exact.factor == 1


def test_overflows_without_end_are_an_error() -> None:
    scale, weight = LossScaler(on=True), nn.Parameter(torch.ones(3))
    for _ in range(MAX_SKIPPED - 1):
        weight.grad = torch.full((3,), torch.nan)
        assert not scale.down([weight])
    weight.grad = torch.full((3,), torch.nan)
    with pytest.raises(UserError, match="overflow float16"):
        scale.down([weight])


def test_a_run_skips_a_step_and_learns_in_the_next(tmp_path: Path) -> None:
    settings = replace(toy.SETTINGS, iterations=2, batch=1, steps=1)
    running = trainer(tmp_path, settings, student=stirred(torch.bfloat16))
    assert (
        not running.scale.on
    )  # bfloat16 has the range of float32; a CPU is quicker with it than with float16
    running.scale = LossScaler(on=True)
    running.scale.factor = 2.0**126
    named = {name: p for name, p in running.student.generator.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in named.items()}
    assert "gradient" not in running.step()
    assert running.scale.skipped == 1
    assert all(torch.equal(p, before[name]) for name, p in named.items())
    running.scale.factor = 2.0**4
    assert running.step()["gradient"] > 0
    assert running.iteration == 2
    assert not all(torch.equal(p, before[name]) for name, p in named.items())
    assert {p.dtype for group in running.optimizer.param_groups for p in group["params"]} == {torch.float32}


def test_float16_alone_is_scaled_beside() -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    assert [LossScaler.beside(kind).on for kind in kinds] == [True, False, False]
