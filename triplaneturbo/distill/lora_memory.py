"""Memory of a LoRA of a teacher's U-Net, counted by running the real modules on the meta device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.distill.memory import MemoryCounter, ModelSizes, fused_attention, size_of
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.loader import META
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.teachers.registry import TEACHERS

TRAINED = 4
"""Copies of a LoRA that is trained: its weights, their gradients and two moments."""


@dataclass(frozen=True)
class LoraMemory:
    """Memory of a LoRA of a teacher's U-Net, in bytes.

    Attributes:
        weights: its weights.
        training: peak of one iteration that trains it.
    """

    weights: int = 0
    training: int = 0


@dataclass(frozen=True)
class ProbedTeacher:
    """A teacher on the meta device, with the renderings of one scene."""

    teacher: Any
    renderings: Renderings
    scenes: SceneBatch

    @classmethod
    def of(cls, name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int) -> ProbedTeacher | None:
        """Create a teacher with the conditioning that it has in a refinement; None if it has no network."""
        probe = TEACHERS[name].loader().probe
        if probe is None:
            return None
        teacher: Any = probe(json.loads(model_sizes.unet), json.loads(model_sizes.vae), dtype).teacher
        teacher.refining = True
        for network in teacher.networks:
            network.requires_grad_(False)
        cameras = Cameras(torch.empty(VIEWS, 4, 4), torch.empty(VIEWS))
        scenes = SceneBatch(["a"], cameras, VIEWS, torch.empty(1, 3))
        renderings = Renderings(
            *(torch.empty(1, VIEWS, side, side, *more, requires_grad=True) for more in ((3,), (), (3,), ())),
        )
        return cls(teacher, renderings, scenes)

    def encoded(self) -> Tensor:
        z: Tensor = self.teacher.encode(self.renderings, self.scenes, torch.Generator())
        return z

    def predict(self, teacher: Any, z: Tensor) -> Tensor:
        condition = self.teacher.condition(self.renderings, self.scenes)
        noise: Tensor = teacher.predict(z, torch.empty(1, dtype=torch.int64), condition, False)[0]
        return noise

    def train(self, critic: LoraCritic, z: Tensor) -> None:
        noise = self.predict(critic.teacher, z)
        noise.backward(torch.empty_like(noise))


@lru_cache(maxsize=32)
def lora_memory(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> LoraMemory:
    """Count a LoRA of a teacher that reads four views of side^2 pixels.

    Returns:
        The memory; zeros for a teacher without a U-Net.
    """
    with META:
        probed = ProbedTeacher.of(name, model_sizes, dtype, side)
        if probed is None or not isinstance(probed.teacher, UNetTeacher):
            return LoraMemory()
        critic = LoraCritic(probed.teacher, rank)
        for p in critic.parameters:
            p.grad = torch.empty_like(p)  # counted separately
        z = probed.encoded().detach()
        with fused_attention(), MemoryCounter() as live:
            probed.train(critic, z)
    return LoraMemory(size_of(*critic.layers, learning=True), live.peak)
