"""The toy world's CLIP as a judge: 64 x 64 pixels, on the one background that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.evaluate.clip import Clip
from triplaneturbo.toyworld.training import clip as toyworld_clip

_RED, _GREEN, _BLUE = (round(255 * value) for value in toyworld_clip.BACKGROUND)
BACKGROUND = (_RED, _GREEN, _BLUE)  # sRGB bytes


class ToyworldJudge:
    """A CLIP saved by `Clip.save`.

    Args:
        folder: its folder.
        device: device of the model.

    Raises:
        UserError: a file is missing or invalid.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._clip = Clip.load(folder)
        self._clip.model.to(device)
        self._device = device

    def embed_images(self, images: np.ndarray) -> Tensor:
        """Return unit embeddings [N, E] on the CPU of images uint8 [N, H, W, 3]."""
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        size = self._clip.size
        pictures = F.interpolate(pictures, (size, size), mode="area")[:, None]  # [N, 1, 3, size, size]
        return self._clip.embed_views(pictures.to(self._device)).cpu()

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit embeddings [M, E] on the CPU; texts beyond the context length are truncated."""
        return self._clip.embed_texts(texts).cpu()
