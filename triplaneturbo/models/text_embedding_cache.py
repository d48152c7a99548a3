"""Text embeddings that are computed once: a run asks for the same prompts again and again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MOST = 4096  # texts that are remembered: 1.3 GB of main memory at the full size


class TextEmbeddingCache:
    """An encoder of texts with a memory.

    The encoder need not be on the device where its embeddings are used: each text costs it one pass. Texts
    are encoded one by one, so that an embedding does not depend on the batch in which it was first asked for.

    Args:
        embed: texts -> embeddings [B, 77, D], on any device.
        device: where embeddings are wanted.
        most: so many are kept, in the main memory; the one that was not asked for the longest goes first.
    """

    def __init__(self, embed: Callable[[list[str]], Tensor], device: torch.device, most: int = MOST) -> None:
        self._embed, self._device, self._most = embed, device, most
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        """The embeddings of some texts [B, 77, D]."""
        found = {}
        for text in texts:
            if text not in found:
                kept = self._kept.pop(text, None)
                found[text] = self._embed([text])[0].cpu() if kept is None else kept
        self._kept |= found
        for text in list(self._kept)[: max(0, len(self._kept) - self._most)]:
            del self._kept[text]
        return torch.stack([found[text] for text in texts]).to(self._device)
