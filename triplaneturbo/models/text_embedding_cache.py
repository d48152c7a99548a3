"""TextEmbeddingCache: an LRU cache of text embeddings for training, where prompts repeat."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cachetools import LRUCache
from torch import Tensor

DEFAULT_SIZE = 4096  # texts: 1.3 GB of main memory for the full model


class TextEmbeddingCache:
    """A text encoder with an LRU cache in main memory.

    Texts are encoded one at a time, so that an embedding does not depend on its batch. The encoder may be on
    another device than the one where embeddings are used.

    Args:
        embed: maps texts to embeddings [B, 77, D], on any device.
        device: device of the returned embeddings.
        max_size: number of embeddings to keep; the least recently used one is evicted first.
    """

    def __init__(
        self, embed: Callable[[list[str]], Tensor], device: torch.device, max_size: int = DEFAULT_SIZE
    ) -> None:
        self._embed, self._device = embed, device
        self._cache: LRUCache[str, Tensor] = LRUCache(max_size)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """Return the embeddings of texts [B, 77, D]."""
        embeddings: dict[str, Tensor] = {}
        for text in dict.fromkeys(texts):
            cached = self._cache.get(text)
            embeddings[text] = self._embed([text])[0].cpu() if cached is None else cached
        for text, embedding in embeddings.items():
            self._cache[text] = embedding
        return torch.stack([embeddings[text] for text in texts]).to(self._device)
