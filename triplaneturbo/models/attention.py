"""Attention of the adapted models: six planes that see each other, one text that serves all six."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from triplaneturbo.models.peta import PLANES

_SMALL = 2**20  # scores a head that are worth keeping for the backward pass


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # [B, heads, N, d]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries [B, heads, N, d] to keys and values [B, heads, M, d]: [B, heads, N, d].

    On a CPU the backward pass of torch's fused kernel takes four times as long as that of the three plain
    steps (34 against 8 ms for 4 x 4 heads of 384 tokens, one core), so these train where they are small.
    """
    small = query.shape[-2] * key.shape[-2] <= _SMALL
    if query.device.type == "cpu" and small and torch.is_grad_enabled() and query.requires_grad:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return torch.softmax(scores, -1).to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


class PlaneAttention:
    """Self-attention over the tokens of all six planes of a prompt.

    Called by diffusers with hidden states [6B, N, C]; projections (and their adapters) see the planes apart,
    attention sees one sequence of 6N tokens a prompt, planes in order. Returns [6B, N, C]. With adapters
    switched off, each row is an image of its own, as in Stable Diffusion.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, **_: object) -> Tensor:
        rows, tokens, _width = hidden_states.shape
        joined = 1 if attn.to_q.disable_adapters else PLANES
        query, key, value = (
            _heads(projection(hidden_states).reshape(rows // joined, joined * tokens, -1), attn.heads)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = attend(query, key, value)  # [B, heads, 6N, d]
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, -1)
        return attn.to_out[0](mixed)


class TextAttention:
    """Cross-attention of each plane to its prompt's text.

    The text [B, 77, D] is projected once a prompt, not once a plane: a plane's tokens attend to it
    independently of the others, so the six planes [6B, N, C] may stand as one sequence of 6N queries.
    A text already repeated for every plane [6B, 77, D] is taken as it is.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_) -> Tensor:
        rows, tokens, _width = hidden_states.shape
        texts = encoder_hidden_states.shape[0]
        query = _heads(attn.to_q(hidden_states).reshape(texts, rows // texts * tokens, -1), attn.heads)
        key, value = (_heads(p(encoder_hidden_states), attn.heads) for p in (attn.to_k, attn.to_v))
        mixed = attend(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, -1)
        return attn.to_out[0](mixed)


def use_plane_attention(unet: nn.Module) -> None:
    """Give the U-Net's self-attentions PlaneAttention and its cross-attentions TextAttention."""
    unet.set_attn_processor(
        {name: PlaneAttention() if "attn1" in name else TextAttention() for name in unet.attn_processors}
    )
