"""Multi-view self-attention: the one difference between a multi-view U-Net and a vanilla one."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor


class MultiViewAttnProcessor:
    """diffusers attention processor: self-attention over the tokens of all views of a scene.

    Hidden states have shape [B * V, N, C], with the V views of a scene adjacent. MVDream (arXiv 2308.16512),
    section 3.1; docs/teachers.md, "Cameras".
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


def use_multi_view_attention(unet: UNet2DConditionModel, views: int) -> None:
    """Use `MultiViewAttnProcessor` for all self-attentions of a U-Net; cross-attention stays per view."""
    unet.set_attn_processor(
        {
            name: MultiViewAttnProcessor(views) if ".attn1." in name else AttnProcessor2_0()
            for name in unet.attn_processors
        }
    )
