"""The path of score networks of Path-Tracing Distillation.

It leads from a LoRA of the teacher that is fitted to an asset's renderings back to the plain teacher.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.random_streams import RandomStreams


def path_weight(i: int, length: float, exponent: float) -> float:
    """Return the scale w(i) = 1 - ((i - 1) / length)^C of the LoRA at iteration i, from 1; 0 after `length`.

    The paper's length is 1000 and its exponent C is 0.3.
    """
    return 1 - ((i - 1) / length) ** exponent if i <= length else 0.0


def checkpoint_index(i: int, length: float, count: int) -> int:
    """Return which of the networks s(0), ..., s(count) is used at iteration i, from 1 (Eq. 7).

    It begins with s(count - 1), and every s(k) is used for an equal share of the first `length` iterations.
    """
    return max(0, count - 1 - int((i - 1) * count / length)) if i <= length else 0


class LoraPath:
    """A copy of a teacher with a LoRA in its U-Net, whose influence can be scaled; weights are shared.

    Args:
        teacher: the teacher; it stays unchanged.
        rank: rank of the LoRA.
        rate: its learning rate.
        seed: seed of its initialization; the LoRA changes nothing until it is fitted.

    Attributes:
        teacher: the copy: a teacher that is the current network of the path.
        checkpoints: LoRA weights that `keep` has stored.
    """

    def __init__(self, teacher: UNetTeacher, rank: int = 4, rate: float = 1e-4, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._denoiser = LoraCritic(teacher, rank, rate)
        self.teacher = self._denoiser.teacher
        self.checkpoints: list[list[Tensor]] = []

    def fit(self, z: Tensor, condition: Any, rng: RandomStreams) -> float:
        """Do one step on the noise-prediction loss of renderings z [B, n, ...] (Eq. 6); return the loss."""
        loss = self._denoiser.accumulate(z, condition, rng)
        self._denoiser.step(DistributedContext())
        return loss

    def keep(self) -> None:
        """Store the current LoRA as the next checkpoint."""
        self.checkpoints.append([p.detach().clone() for p in self._denoiser.parameters])

    @torch.no_grad()
    def use_checkpoint(self, index: int) -> None:
        """Become s(index): the plain teacher for 0, else the checkpoint `index`, from 1, at full scale."""
        self.set_weight(1.0 if index else 0.0)
        if index:
            for p, value in zip(self._denoiser.parameters, self.checkpoints[index - 1], strict=True):
                p.copy_(value)

    def set_weight(self, weight: float) -> None:
        """Scale the LoRA by `weight`, 0 to 1; at 0 the copy computes the bits of the base."""
        for layer in self._denoiser.layers:
            layer.enable_adapters(weight > 0)
            layer.set_scale(self._denoiser.adapter, weight)

    def state_dict(self) -> dict[str, Any]:
        """Return the LoRA, its optimizer and the checkpoints."""
        return {"denoiser": self._denoiser.state_dict(), "checkpoints": self.checkpoints}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        self._denoiser.load_state_dict(state["denoiser"])
        device = self._denoiser.parameters[0].device
        self.checkpoints = [[value.to(device) for value in kept] for kept in state["checkpoints"]]
