"""Memory plans: the parts of a run at its peak, and the cheapest savings with which they fit a device.

Savings cost time but never change results. They are applied in order of their cost, and only as needed. What
the parts are is in finetune/memory_plan.py and refine/memory_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from triplaneturbo.utils.units import GB

# CUDA context with libraries, and the fraction added to activations for fragmentation and workspaces.
CONTEXT, GAPS = GB * 3 // 4, 0.1


@dataclass(frozen=True)
class MemorySavings:
    """Memory savings, cheapest first.

    Attributes:
        texts: keep text encoders on the CPU.
        views: teachers encode one view at a time; see `sample_latents`.
        checkpointing: gradient checkpointing; see `TriplaneGenerator.recompute`.
        offload_teachers: teachers move to the device one at a time; see `teachers.offload`.
    """

    texts: bool = False
    views: bool = False
    checkpointing: bool = False
    offload_teachers: bool = False

    @property
    def descriptions(self) -> list[str]:
        """Descriptions for users."""
        descriptions = {
            "texts": "text encoders run on the CPU (1 s per new prompt)",
            "views": "teachers encode one view at a time (a third more encoder time)",
            "checkpointing": "the U-Net and the decoder use gradient checkpointing (a third more time of the"
            " student)",
            "offload_teachers": "teachers are offloaded to CPU memory (1 to 2 s per iteration)",
        }
        return [text for name, text in descriptions.items() if getattr(self, name)]


LADDER = (
    MemorySavings(),
    MemorySavings(texts=True),
    MemorySavings(texts=True, views=True),
    MemorySavings(texts=True, views=True, checkpointing=True),
    MemorySavings(texts=True, views=True, checkpointing=True, offload_teachers=True),
)


@dataclass(frozen=True)
class Plan:
    """The plan of a run that fits.

    Attributes:
        parts: bytes by part at the peak.
        savings: savings that are needed.
        memory: available bytes.
        frozen: dtype of frozen weights.
        subject: what the plan is of, in sentences.
    """

    parts: dict[str, int]
    savings: MemorySavings
    memory: int
    frozen: torch.dtype
    subject: str = "run"

    @property
    def total(self) -> int:
        """Total bytes."""
        return sum(self.parts.values())

    @property
    def sentence(self) -> str:
        """Summary of the memory and the savings."""
        takes = f"The {self.subject} takes {self.total / GB:.1f} of {self.memory / GB:.1f} GB"
        used = self.savings.descriptions
        if not used:
            return f"{takes} without savings."
        return f"{takes} with these savings: {'; '.join(used)}."

    def table(self) -> str:
        """Table of the parts and, of a run, the number of trainable parameters, followed by the summary."""
        lines = []
        if "gradients" in self.parts:
            lines.append(f"{'trainable parameters':44}{self.parts['gradients'] // 4:11,}")
        lines += [f"{name:44}{size / GB:8.2f} GB" for name, size in self.parts.items() if size]
        return "\n".join([*lines, f"{'total':44}{self.total / GB:8.2f} GB", self.sentence])


def cheapest_plan(
    ladder: Sequence[MemorySavings],
    parts: Callable[[MemorySavings], dict[str, int]],
    available: int,
    frozen: torch.dtype,
) -> Plan | None:
    """Return the plan with as few savings as possible; None if nothing fits.

    Args:
        ladder: savings to try, cheapest first.
        parts: returns the bytes by part at the peak with these savings.
        available: available bytes.
        frozen: dtype of frozen weights.
    """

    def fits(savings: MemorySavings) -> bool:
        return sum(parts(savings).values()) <= available

    for savings in ladder:
        if fits(savings):
            # A costly saving may have made a cheap one unnecessary.
            for name in [field.name for field in fields(savings)]:
                less = replace(savings, **{name: False})
                savings = less if fits(less) else savings
            return Plan(parts(savings), savings, available, frozen)
    return None


def device_overhead(device: torch.device, activations: int, loaded: bool = False) -> dict[str, int]:
    """Return the part that a device takes beside tensors.

    Args:
        device: the device.
        activations: bytes of activations at the peak.
        loaded: whether the process uses the device already, so that its context exists.
    """
    if device.type != "cuda":
        return {}
    gaps = int(GAPS * activations)
    return {"fragmentation": gaps} if loaded else {"CUDA context and fragmentation": CONTEXT + gaps}
