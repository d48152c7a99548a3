"""RichDreamer's normal-depth model: a denoiser of four views' normals and disparity (arXiv 2311.16918).

A U-Net of Stable Diffusion 1's kind that diffuses the four numbers a pixel themselves, without an
autoencoder; its text encoder is that of Stable Diffusion 1.5 (CLIP ViT-L/14).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity
from triplaneturbo.teachers.ldm import read_ldm, unet_from
from triplaneturbo.teachers.multi_view import NEGATIVE, Embed, MultiView, placed
from triplaneturbo.utils.random_streams import RandomStreams

SIZE = 32  # side of what it diffuses

UNET: dict[str, Any] = {
    "sample_size": SIZE,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}


class RichDreamer(MultiView):
    """Looks at the normals and disparity of all four views.

    Args:
        size: side of what it diffuses.
        released: show it [0, 1], as the released trainer did, and not [-1, 1], as its authors do.
        unet, embed, negative, autocast: see `MultiView`.
    """

    name = "richdreamer"
    reads: tuple[str, ...] = ("normal", "depth", "opacity")

    def __init__(
        self,
        unet: UNet2DConditionModel,
        embed: Embed,
        negative: str = NEGATIVE,
        size: int = SIZE,
        released: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(unet, embed, negative, autocast)
        self.size, self.released = size, released

    @classmethod
    def load(cls, path: Path, embed: Embed, **options: Any) -> RichDreamer:
        """From the released file.

        Raises:
            UserError: it cannot be read, or is of another model.
        """
        return cls(unet_from(read_ldm(path), UNET, path), embed, **options)

    def _cameras(self, cameras: Cameras) -> Tensor:
        c2w = placed(cameras, turned=True)
        # Its cameras stand at twice their distance in units of the one where a side of 2 fills the view.
        relative = cameras.positions.norm(dim=-1) * torch.tan(cameras.fovy / 2)  # [V]
        c2w[:, :3, 3] = c2w[:, :3, 3] * (2 * relative.float())[:, None]
        return c2w.flatten(1)

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Normals in camera axes and disparity, pooled: [B, V, 4, h, h]; `chance` is not used."""
        images = normals_and_disparity(seen, scenes).movedim(-1, 2).flatten(0, 1)  # [B * V, 4, H, W]
        pooled = F.adaptive_avg_pool2d(images, self.size).unflatten(0, (-1, scenes.views))
        return pooled if self.released else pooled * 2 - 1
