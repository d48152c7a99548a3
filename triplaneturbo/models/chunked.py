"""Functions of many rows, computed a slab of rows at a time, backwards too: what stays in a cache is quick.

A point's MLP costs little arithmetic and much memory: on a CPU, writing its hidden layers for 10^5 points to
memory and reading them back takes longer than computing them twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def chunked(function: Callable[..., Tensor], rows: int, cut: list[Tensor], whole: list[Tensor]) -> Tensor:
    """`function(*cut, *whole)`, where row i of the result depends on row i of each tensor in `cut` alone.

    Differentiable in all tensors, once; nothing of the function's inside is kept for the backward pass.

    Args:
        function: must not use other tensors that learn.
        rows: how many at a time.
        cut: tensors with the same number of rows, at least one.
        whole: tensors that every row may depend on.
    """
    return _Slabs.apply(function, rows, len(cut), *cut, *whole)


class _Slabs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], rows: int, cut: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.rows, ctx.cut = function, rows, cut
        ctx.save_for_backward(*tensors)
        whole = tensors[cut:]
        slabs = zip(*(tensor.split(rows) for tensor in tensors[:cut]), strict=True)
        return torch.cat([function(*slab, *whole) for slab in slabs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        learning = [i for i, want in enumerate(wanted) if want]
        sums = {i: torch.zeros_like(tensors[i]) for i in learning}
        for start in range(0, len(tensors[0]), ctx.rows):
            slab = slice(start, start + ctx.rows)
            leaves = [(tensor[slab] if i < ctx.cut else tensor).detach() for i, tensor in enumerate(tensors)]
            for i in learning:
                leaves[i].requires_grad_()
            with torch.enable_grad():
                out = ctx.function(*leaves)
            found = torch.autograd.grad(out, [leaves[i] for i in learning], grads[0][slab])
            for i, gradient in zip(learning, found, strict=True):
                (sums[i][slab] if i < ctx.cut else sums[i]).add_(gradient)
        return None, None, None, *(sums.get(i) for i in range(len(tensors)))
