"""Words for the direction of a view, whose text embeddings are interpolated by azimuth (arXiv 2311.11284)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

VIEW_WORDS = ("front view", "side view", "back view")


def view_weights(positions: Tensor) -> Tensor:
    """Return the weights of `VIEW_WORDS` for camera positions [..., 3], as [..., 3] that sum to 1.

    They are linear in the azimuth between the front (+x), the sides and the back, whatever the elevation.
    """
    azimuth = torch.atan2(positions[..., 1], positions[..., 0]).abs()  # 0 to pi
    turned = azimuth * (2 / torch.pi)  # quarter turns: 0 to 2
    front, back = (1 - turned).clamp_min(0), (turned - 1).clamp_min(0)
    return torch.stack((front, 1 - front - back, back), -1)


def embed_views(embed: Callable[[list[str]], Tensor], captions: Sequence[str], positions: Tensor) -> Tensor:
    """Return text embeddings of captions with words for their views [B, V, 77, D].

    Args:
        embed: texts -> text embeddings [N, 77, D].
        captions: B captions.
        positions: camera positions [B, V, 3].
    """
    texts = [f"{caption}, {words}" for caption in captions for words in VIEW_WORDS]
    embeddings = embed(texts).unflatten(0, (-1, len(VIEW_WORDS)))  # [B, 3, 77, D]
    return torch.einsum("bvk,bkwd->bvwd", view_weights(positions).to(embeddings), embeddings)
