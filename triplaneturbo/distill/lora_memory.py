"""Memory of a LoRA of a teacher's U-Net, counted by running the real modules on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.distill.memory import MemoryCounter, ModelSizes, ProbedTeacher, fused_attention, size_of
from triplaneturbo.teachers.loader import META

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


def train_lora(probed: ProbedTeacher, critic: LoraCritic, z: Tensor) -> None:
    """Accumulate the gradients of a LoRA on encoded renderings."""
    noise = probed.predict(critic.teacher, z, probed.condition())
    noise.backward(torch.empty_like(noise))


@lru_cache(maxsize=32)
def lora_memory(name: str, model_sizes: ModelSizes, dtype: torch.dtype, side: int, rank: int) -> LoraMemory:
    """Count a LoRA of a teacher that reads four views of side^2 pixels.

    Returns:
        The memory; zeros for a teacher without a U-Net.
    """
    with META:
        probed = ProbedTeacher.of(name, model_sizes, dtype, side, refining=True)
        if probed is None or not isinstance(probed.teacher, UNetTeacher):
            return LoraMemory()
        critic = LoraCritic(probed.teacher, rank)
        for p in critic.parameters:
            p.grad = torch.empty_like(p)  # counted separately
        z = probed.encoded().detach()
        with fused_attention(), MemoryCounter() as live:
            train_lora(probed, critic, z)
    return LoraMemory(size_of(*critic.layers, learning=True), live.peak)
