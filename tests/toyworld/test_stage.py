"""The training loop of a stage: resuming is bit-exact and never mixes up runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.training.stage import train_stage
from triplaneturbo.utils import devices
from triplaneturbo.utils.distributed import DistributedContext

STEPS, EVERY = 14, 4


class Killed(BaseException):
    """Simulates a kill: must not be caught."""


def train(
    folder: Path,
    *,
    killed_at: int | None = None,
    average: float = 0.9,
    steps: int = STEPS,
    settings: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[nn.ModuleDict, int]:
    """Train a small model on random numbers of both generators; returns it and the number of steps."""
    torch.manual_seed(0)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    modules = nn.ModuleDict({"a": nn.Linear(4, 8), "b": nn.Linear(8, 1), "frozen": frozen})
    taken = 0

    def loss(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        nonlocal taken
        if killed_at == taken:
            raise Killed
        taken += 1
        x = torch.from_numpy(rng.random((16, 4), dtype=np.float32)) + torch.randn(16, 4, generator=noise)
        value = (modules["b"](modules["a"](x).relu()).float() - x.sum(1, keepdim=True)).square().mean()
        return value, {"square": value.item()}

    train_stage(
        "stage", folder, modules, loss, context=DistributedContext(), steps=steps, rate=1e-2, average=average,
        settings=settings or {"batch": 16}, save_every=EVERY, progress=progress,
    )  # fmt: skip
    return modules, taken


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("killed_at", [2, 4, 11])
def test_killed_and_resumed_run_equals_uninterrupted_run(
    tmp_path: Path, average: float, killed_at: int
) -> None:
    whole, _ = train(tmp_path / "whole", average=average)
    with pytest.raises(Killed):
        train(tmp_path / "cut", killed_at=killed_at, average=average)
    resumed, taken = train(tmp_path / "cut", average=average)
    assert taken == STEPS - killed_at // EVERY * EVERY
    assert same(whole, resumed)
    done, taken = train(tmp_path / "cut", average=average)
    assert taken == 0
    assert same(whole, done)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "stage.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12, 14]


def test_stage_trains_and_averages_weights(tmp_path: Path) -> None:
    saved: list[int] = []
    smooth, _ = train(tmp_path / "a", progress=saved.append)
    last, _ = train(tmp_path / "b", average=0.0)
    assert saved == [4, 8, 12, 14]
    assert not same(smooth, last)
    torch.manual_seed(0)
    fresh = nn.Linear(2, 2)
    assert torch.equal(last["frozen"].weight, fresh.weight)
    log = [json.loads(line) for line in (tmp_path / "a" / "stage.jsonl").read_text().splitlines()]
    assert log[-1]["square"] < log[0]["square"]


@pytest.mark.parametrize("change", [{"steps": STEPS + 1}, {"settings": {"batch": 17}}])
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        train(tmp_path, killed_at=5)
    before = (tmp_path / "stage.pt").read_bytes()
    with pytest.raises(UserError, match=next(iter(change.get("settings", change)))):
        train(tmp_path, **change)
    assert (tmp_path / "stage.pt").read_bytes() == before
    assert train(tmp_path)[1] == STEPS - EVERY


def test_broken_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, killed_at=5)
    path = tmp_path / "stage.pt"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="broken"):
        train(tmp_path)


@pytest.mark.parametrize(("unit", "precision"), [(None, torch.float32), ("AMX", torch.bfloat16)])
def test_bfloat16_is_used_only_where_the_cpu_has_it(
    unit: str | None, precision: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 products are 200 times slower without its instructions."""
    monkeypatch.setattr(devices, "bfloat16_unit", lambda: unit)
    modules, seen = nn.ModuleDict({"a": nn.Linear(4, 1)}), []

    def loss(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        value = modules["a"](torch.ones(2, 4))
        seen.append(value.dtype)
        return value.float().square().mean(), {}

    train_stage(
        "stage", tmp_path, modules, loss, context=DistributedContext(), steps=1, rate=1e-2, settings={}
    )
    assert seen == [precision]
