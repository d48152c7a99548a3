"""Attention and group norms as they are trained on a CPU: the same values and gradients as plain ones."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.models import attention
from triplaneturbo.models.attention import attend
from triplaneturbo.models.groupnorm_layout import use_contiguous_groupnorm


def slowly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention, one query after the other."""
    out = torch.empty_like(query)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for n in range(query.shape[2]):
                scores = (key[b, h] @ query[b, h, n] / math.sqrt(query.shape[-1])).exp()
                out[b, h, n] = (scores[:, None] * value[b, h]).sum(0) / scores.sum()
    return out


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("trains", [True, False])
def test_attention_matches_the_formula(small: bool, trains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_EAGER_LIMIT", 2**20 if small else 1)
    draw = [torch.randn(2, 3, n, 4, requires_grad=trains) for n in (5, 7, 7)]
    found, wanted = attend(*draw), slowly(*draw)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    if trains:
        weights = torch.randn_like(found)
        ours, theirs = (torch.autograd.grad((out * weights).sum(), draw) for out in (found, wanted))
        for mine, plain in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_attention_keeps_half_precision_under_autocast() -> None:
    query = torch.randn(1, 2, 5, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*(part.bfloat16() for part in (query, query, query)))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [torch.contiguous_format, torch.channels_last])
def test_contiguous_group_norm_matches(kind: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 2, 3))
    laid = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 2, 3))
    laid.load_state_dict(plain.state_dict())
    laid.to(memory_format=kind)
    use_contiguous_groupnorm(laid)
    x = torch.randn(2, 3, 9, 9)
    shown = []
    laid[2].register_forward_pre_hook(lambda _module, inputs: shown.append(inputs[0].is_contiguous()))
    gradients = []
    for model in (plain, laid):
        one = x.clone().to(memory_format=kind).requires_grad_()
        out = model(one)
        F.mse_loss(out, torch.zeros_like(out)).backward()
        gradients.append([one.grad, *(p.grad for p in model.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(model(x), out)
    assert shown[0]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
