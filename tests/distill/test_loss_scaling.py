"""Loss scaling: gradients survive float16, and overflowing steps are skipped and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers import toy
from tests.helpers.runs import trainer
from tests.helpers.students import stirred
from triplaneturbo.distill import loss_scaling
from triplaneturbo.distill.loss_scaling import INITIAL_FACTOR, MAX_SKIPPED, LossScaler
from triplaneturbo.errors import UserError


def through_half(scaler: LossScaler, weight: nn.Parameter, size: float) -> None:
    """Run a backward pass whose gradient of `size` passes through float16."""
    scaler.scale((weight.half().float() * size).sum()).backward()


def test_gradients_too_small_for_float16_survive() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    for weight, scaler in zip(weights, (LossScaler(enabled=False), LossScaler(enabled=True)), strict=True):
        through_half(scaler, weight, 1e-9)
        assert scaler.unscale([weight])
    assert weights[0].grad is not None
    assert float(weights[0].grad.abs().max()) == 0
    torch.testing.assert_close(weights[1].grad, torch.full((3,), 1e-9), rtol=1e-3, atol=0)


def test_overflows_are_skipped_and_the_scale_adapts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scaling, "GROWTH_INTERVAL", 3)
    scaler, weight = LossScaler(enabled=True), nn.Parameter(torch.ones(3))
    outcomes = []
    for _ in range(6):
        weight.grad = None
        through_half(scaler, weight, 16.0)  # 16 * 2^14 is more than 65504, and so is 16 * 2^12
        outcomes.append(scaler.unscale([weight]))
        assert (weight.grad is not None) == outcomes[-1]
    assert outcomes == [False, False, False, True, True, True]
    assert (scaler.skipped, scaler.factor) == (3, INITIAL_FACTOR / 4)


def test_scaler_resumes_from_its_state() -> None:
    scaler, weight = LossScaler(enabled=True), nn.Parameter(torch.ones(3))
    through_half(scaler, weight, 1e9)
    assert not scaler.unscale([weight])
    other = LossScaler(enabled=True)
    other.load_state_dict(scaler.state_dict())
    assert (other.factor, other.skipped, other.state_dict()) == (INITIAL_FACTOR / 2, 1, scaler.state_dict())
    exact = LossScaler(enabled=False)
    exact.load_state_dict(scaler.state_dict())
    assert exact.factor == 1


def test_repeated_overflows_are_an_error() -> None:
    scaler, weight = LossScaler(enabled=True), nn.Parameter(torch.ones(3))
    for _ in range(MAX_SKIPPED - 1):
        weight.grad = torch.full((3,), torch.nan)
        assert not scaler.unscale([weight])
    weight.grad = torch.full((3,), torch.nan)
    with pytest.raises(UserError, match="overflowed float16"):
        scaler.unscale([weight])


def test_training_continues_after_a_skipped_step(tmp_path: Path) -> None:
    settings = replace(toy.SETTINGS, iterations=2, batch=1, steps=1)
    running = trainer(tmp_path, settings, student=stirred(torch.bfloat16))
    assert (
        not running.scaler.enabled
    )  # bfloat16 has the range of float32; a CPU is quicker with it than with float16
    running.scaler = LossScaler(enabled=True)
    running.scaler.factor = 2.0**126
    named = {name: p for name, p in running.student.generator.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in named.items()}
    assert "gradient" not in running.step()
    assert running.scaler.skipped == 1
    assert all(torch.equal(p, before[name]) for name, p in named.items())
    running.scaler.factor = 2.0**4
    assert running.step()["gradient"] > 0
    assert running.iteration == 2
    assert not all(torch.equal(p, before[name]) for name, p in named.items())
    assert {p.dtype for group in running.optimizer.param_groups for p in group["params"]} == {torch.float32}


def test_only_float16_is_scaled() -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float32)
    assert [LossScaler.for_dtype(kind).enabled for kind in kinds] == [True, False, False]
