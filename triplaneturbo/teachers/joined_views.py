"""The one thing that a multi-view teacher has and a vanilla U-Net has not: views that see each other."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor


class JoinedViews:
    """Self-attention over the tokens of all views of a scene, in one sequence.

    Called by diffusers with hidden states [B * V, N, C], a scene's V views one after the other; returns the
    same shape. Facts: MVDream, section 3.1; facts/teachers.md 1.1.
    """

    def __init__(self, views: int) -> None:
        self.views = views

    def __call__(self, attn: Attention, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        rows, tokens, width = hidden_states.shape
        joined = hidden_states.reshape(rows // self.views, self.views * tokens, width)  # [B, V * N, C]
        query, key, value = (
            projection(joined).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )  # [B, heads, V * N, C / heads]
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return attn.to_out[0](mixed.reshape(rows, tokens, -1))


def join_views(unet: UNet2DConditionModel, views: int) -> None:
    """Give all self-attentions of a U-Net JoinedViews; cross-attentions stay each view's own."""
    unet.set_attn_processor(
        {
            name: JoinedViews(views) if ".attn1." in name else AttnProcessor2_0()
            for name in unet.attn_processors
        }
    )
