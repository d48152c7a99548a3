"""Optimizers of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "soap", "adan"]

_LARGEST = 256  # SOAP: larger dimensions are not rotated, as the matrix would cost more than it saves


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    """Create an optimizer without weight decay; eps is tiny, since the scale of gradients is arbitrary.

    Args:
        name: "adamw"; "soap", Adam in the eigenbasis of Shampoo's preconditioner (arXiv 2409.11321, algorithm
            3), which takes 10% more time per step on the small model but reaches a lower loss in the same
            time; or "adan" (arXiv 2208.06677), which the released weights were trained with.
        rate: learning rate.
    """
    if name == "adamw":
        return torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), eps=1e-12, weight_decay=0.0, fused=True
        )
    from pytorch_optimizer import SOAP, Adan

    if name == "adan":
        return Adan(parameters, lr=rate, betas=(0.98, 0.92, 0.99), eps=1e-15, weight_decay=0.0)
    return SOAP(
        parameters,
        lr=rate,
        betas=(0.9, 0.98),
        eps=1e-12,
        weight_decay=0.0,
        precondition_frequency=10,
        max_precondition_dim=_LARGEST,
    )
