"""The optimisers that a run can be told to use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "soap", "adan"]

_LARGEST = 256  # a dimension above it is not rotated: its matrix would cost more than it saves


def make_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    """An optimiser without weight decay, for gradients whose scale says nothing (eps is next to zero).

    Args:
        name: "adamw"; or "soap", Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024,
            algorithm 3): a tenth more time a step on the small model, and a lower loss after the same time;
            or "adan" (Xie et al. 2022), as the released weights were trained.
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
