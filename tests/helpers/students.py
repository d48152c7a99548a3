"""Students with nonzero adapters."""

from __future__ import annotations

import torch

from tests.helpers import toy
from triplaneturbo.distill.prd import Student
from triplaneturbo.distill.student import cast_frozen
from triplaneturbo.models.adapter import adapter_tensors, set_adapter_tensors
from triplaneturbo.models.merged_lora import MergedLora


def stirred(frozen: torch.dtype = torch.float32, checkpointing: bool = False) -> Student:
    """Create the toy student with a nonzero adapter."""
    student = toy.student()
    generator = student.generator
    draw = torch.Generator().manual_seed(2)
    tensors = {
        name: 0.1 * torch.randn(value.shape, generator=draw) if "lora_B" in name else value
        for name, value in adapter_tensors(generator).items()
    }
    set_adapter_tensors(generator, tensors, "test")
    if frozen != torch.float32:
        cast_frozen(generator, frozen)
    generator.recompute(checkpointing)
    return Student(generator, MergedLora(generator, live=frozen != torch.float32), toy.embed)
