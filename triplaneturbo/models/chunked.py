"""Chunked evaluation of row-wise functions with recomputation in the backward pass.

Small MLPs on many points are limited by memory bandwidth: on a CPU, storing and reading the hidden layers of
10^5 points takes longer than computing them twice in chunks that fit the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def chunked(
    function: Callable[..., Tensor], chunk_size: int, batched: list[Tensor], shared: list[Tensor]
) -> Tensor:
    """Evaluate `function(*batched, *shared)` in chunks of rows.

    Row i of the result must depend only on row i of each tensor in `batched`, and on `shared`. The result is
    differentiable once in all tensors; the backward pass recomputes intermediate values.

    Args:
        function: returns one tensor with the rows of its batched inputs; must not use other trainable
            tensors.
        chunk_size: number of rows per chunk.
        batched: tensors with the same number of rows, at least one.
        shared: tensors that every row may depend on.
    """
    return _Chunked.apply(function, chunk_size, len(batched), *batched, *shared)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], chunk_size: int, batched: int, *tensors: Tensor
    ) -> Tensor:
        ctx.function, ctx.chunk_size, ctx.batched = function, chunk_size, batched
        ctx.save_for_backward(*tensors)
        shared = tensors[batched:]
        chunks = zip(*(tensor.split(chunk_size) for tensor in tensors[:batched]), strict=True)
        return torch.cat([function(*chunk, *shared) for chunk in chunks])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        trainable = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        sums = {i: torch.zeros_like(tensors[i]) for i in trainable}
        for start in range(0, len(tensors[0]), ctx.chunk_size):
            rows = slice(start, start + ctx.chunk_size)
            leaves = [
                (tensor[rows] if i < ctx.batched else tensor).detach() for i, tensor in enumerate(tensors)
            ]
            for i in trainable:
                leaves[i].requires_grad_()
            with torch.enable_grad():
                out = ctx.function(*leaves)
            gradients = torch.autograd.grad(out, [leaves[i] for i in trainable], grads[0][rows])
            for i, gradient in zip(trainable, gradients, strict=True):
                (sums[i][rows] if i < ctx.batched else sums[i]).add_(gradient)
        return None, None, None, *(sums.get(i) for i in range(len(tensors)))
