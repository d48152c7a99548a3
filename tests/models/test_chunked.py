"""A function computed slab by slab: the values and gradients of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from triplaneturbo.models.chunked import chunked


def product(rows: Tensor, other: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(rows @ weight + bias) * other[:, :1]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20])
def test_chunked_decoding_matches(count: int) -> None:
    torch.manual_seed(0)
    shapes = ((count, 3), (count, 2), (3, 5), (5,))
    one = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    one[1].requires_grad_(False)
    other = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in one]
    slabs, whole = chunked(product, 8, one[:2], one[2:]), product(*other)
    torch.testing.assert_close(slabs, whole)
    toward = torch.randn_like(whole)
    slabs.backward(toward)
    whole.backward(toward)
    assert one[1].grad is None
    for mine, plain in zip(one, other, strict=True):
        if mine.requires_grad:
            torch.testing.assert_close(mine.grad, plain.grad)
