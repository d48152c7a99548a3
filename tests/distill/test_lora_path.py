"""The path of score networks: its weights, its ends, and the teacher that stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.seeded import seeded
from tests.helpers.small_stable_diffusion import make, scenes, seen
from triplaneturbo.distill.lora_path import LoraPath, checkpoint_index, path_weight
from triplaneturbo.teachers.base import Teacher


def test_weights_are_those_of_the_paper() -> None:
    weights = [path_weight(i, 1000, 0.3) for i in (1, 2, 100, 300, 1000, 1001, 5000)]
    assert weights == pytest.approx([1, 0.874, 0.50, 0.30, 0.0003, 0, 0], abs=5e-3)
    assert weights[0] == 1
    assert weights[-2:] == [0, 0]
    shorter = [path_weight(1 + i // 10, 100, 0.3) for i in (0, 100, 500)]
    assert shorter == pytest.approx([path_weight(1 + i, 1000, 0.3) for i in (0, 100, 500)])


def test_checkpoints_are_used_from_the_last_to_the_first() -> None:
    indices = [checkpoint_index(i, 12, 4) for i in range(1, 15)]
    assert indices == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0, 0]


@pytest.fixture
def fitted() -> tuple[LoraPath, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """A path whose LoRA has learned; noisy latents, timesteps, a condition, and the base's prediction."""
    torch.manual_seed(0)
    teacher = make()[2]
    condition = teacher.condition(seen(), scenes())
    noisy, times = torch.randn(2, 1, 4, 8, 8), torch.tensor([30, 700])
    path = LoraPath(teacher, rate=1e-2)
    z = torch.randn(2, 1, 4, 8, 8)
    losses = []
    for _ in range(12):
        losses.append(path.fit(z, condition, seeded()))
        path.keep()
    assert losses[-1] < 0.9 * losses[0]
    # The student's U-Net has faster layers, which round differently: see `teachers.twin`.
    base = predict(teacher.twin()[0], noisy, times, condition)
    torch.testing.assert_close(predict(teacher, noisy, times, condition), base, rtol=1e-5, atol=1e-5)
    return path, noisy, times, condition, base


@torch.no_grad()
def predict(teacher: Teacher, noisy: Tensor, times: Tensor, condition: tuple[Tensor, Tensor]) -> Tensor:
    text, empty = teacher.predict(noisy, times, condition, True)
    assert empty is not None
    return torch.stack((text, empty))


def test_the_path_leads_from_the_lora_to_the_base_bit_for_bit(fitted) -> None:
    path, noisy, times, condition, expected = fitted
    distances = []
    for weight in (1.0, 0.5, 0.0):
        path.set_weight(weight)
        distances.append(float((predict(path.teacher, noisy, times, condition) - expected).abs().mean()))
    assert distances[0] > distances[1] > 0
    assert torch.equal(predict(path.teacher, noisy, times, condition), expected)


def test_checkpoints_are_restored(fitted) -> None:
    path, noisy, times, condition, expected = fitted
    last = predict(path.teacher, noisy, times, condition)
    path.use_checkpoint(3)
    third = predict(path.teacher, noisy, times, condition)
    path.use_checkpoint(0)
    assert torch.equal(predict(path.teacher, noisy, times, condition), expected)
    path.use_checkpoint(12)
    assert torch.equal(predict(path.teacher, noisy, times, condition), last)
    assert not torch.equal(third, last)
    other = LoraPath(make()[2], seed=1)
    other.load_state_dict(path.state_dict())
    assert torch.equal(predict(other.teacher, noisy, times, condition), last)
