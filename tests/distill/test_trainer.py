"""The trainer with a method of another representation: a point cloud that is pulled to random targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.loss_scaling import LossScaler
from triplaneturbo.distill.settings import Settings
from triplaneturbo.distill.trainer import Place, Trainer
from triplaneturbo.utils.distributed import DistributedContext

SETTINGS = Settings(iterations=6, batch=2, learning_rate=0.1, average=0.5)


class PointCloud:
    """A `trainer.Method` without planes, teachers or a generator."""

    dtype = torch.float32

    def __init__(self) -> None:
        self.critics: dict[str, LoraCritic] = {}
        self.points = nn.Parameter(torch.ones(5, 3))
        self.replaced = 0

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"points": self.points}

    def step(self, place: Place, scaler: LossScaler) -> dict[str, float]:
        noise = np.random.default_rng(place.iteration).normal(size=(5, 3)).astype(np.float32)
        loss = (self.points - 0.1 * torch.from_numpy(noise)).square().mean()
        scaler.scale(loss).backward()
        return {"distance": float(loss.detach())}

    def weights_replaced(self) -> None:
        self.replaced += 1


def make(folder: Path) -> tuple[PointCloud, Trainer]:
    method = PointCloud()
    return method, Trainer(DistributedContext(), method, SETTINGS, folder, save_every=2)


def test_another_method_is_trained_averaged_and_resumed(tmp_path: Path) -> None:
    method, trainer = make(tmp_path / "whole")
    logs = [trainer.step() for _ in range(SETTINGS.iterations)]
    assert trainer.finished
    assert logs[0].keys() == {"distance", "gradient"}
    assert logs[-1]["distance"] < 0.7 * logs[0]["distance"]
    trained = method.points.detach().clone()
    with trainer.averaged():
        assert torch.equal(method.points, trainer.average["points"])
        assert not torch.equal(method.points, trained)
    assert torch.equal(method.points, trained)
    assert method.replaced == 2

    _, interrupted = make(tmp_path / "parts")
    for _ in range(3):
        interrupted.step()
    other, resumed = make(tmp_path / "parts")
    assert resumed.iteration == 2
    while not resumed.finished:
        resumed.step()
    assert torch.equal(other.points, trained)
    assert torch.equal(resumed.average["points"], trainer.average["points"])
