"""Attention processors: joint self-attention over six planes, and cross-attention to a shared text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from triplaneturbo.models.peta import PLANES

_EAGER_LIMIT = 2**20  # attention scores per head up to which the unfused path is used in training


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, heads, N, d]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention.

    On a CPU, the backward pass of torch's fused kernel takes four times as long as that of the unfused
    computation (34 vs. 8 ms for 4 x 4 heads of 384 tokens on one core), so small inputs train unfused.

    Args:
        query: [B, heads, N, d].
        key: [B, heads, M, d].
        value: [B, heads, M, d].

    Returns:
        [B, heads, N, d].
    """
    small = query.shape[-2] * key.shape[-2] <= _EAGER_LIMIT
    if query.device.type == "cpu" and small and torch.is_grad_enabled() and query.requires_grad:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return torch.softmax(scores, -1).to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


class PlaneAttention:
    """diffusers attention processor: joint self-attention over the tokens of a prompt's six planes.

    Hidden states are [6B, N, C] in and out. The projections (and their adapters) treat planes separately;
    attention runs on one sequence of 6N tokens per prompt. With adapters disabled, each row is an independent
    image, as in Stable Diffusion.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        rows, tokens, _width = hidden_states.shape
        planes = 1 if attn.to_q.disable_adapters else PLANES
        query, key, value = (
            _split_heads(projection(hidden_states).reshape(rows // planes, planes * tokens, -1), attn.heads)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        output = attend(query, key, value)  # [B, heads, 6N, d]
        output = output.transpose(1, 2).reshape(rows, tokens, -1)
        return attn.to_out[0](output)


class TextAttention:
    """diffusers attention processor: cross-attention of each plane to the text of its prompt.

    The text [B, 77, D] is projected once per prompt, not once per plane: queries are independent of each
    other, so the six planes [6B, N, C] are processed as one sequence of 6N queries. Several texts per prompt
    are given to equal shares of its planes in order: two [2B, 77, D] to its geometry and its texture planes,
    six [6B, 77, D] to one plane each.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_) -> Tensor:
        rows, tokens, _width = hidden_states.shape
        texts = encoder_hidden_states.shape[0]
        query = _split_heads(attn.to_q(hidden_states).reshape(texts, rows // texts * tokens, -1), attn.heads)
        key, value = (_split_heads(p(encoder_hidden_states), attn.heads) for p in (attn.to_k, attn.to_v))
        output = attend(query, key, value)
        output = output.transpose(1, 2).reshape(rows, tokens, -1)
        return attn.to_out[0](output)


def use_plane_attention(unet: nn.Module) -> None:
    """Set the processors of the U-Net: PlaneAttention for self-, TextAttention for cross-attention."""
    unet.set_attn_processor(
        {name: PlaneAttention() if "attn1" in name else TextAttention() for name in unet.attn_processors}
    )
