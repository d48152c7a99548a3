"""MVDream: a denoiser of four colour views in Stable Diffusion's latents (arXiv 2308.16512).

Its released file holds a U-Net and an autoencoder; its text encoder is that of Stable Diffusion 2.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.latents import sample_latents
from triplaneturbo.teachers.ldm import read_ldm, unet_from, vae_from
from triplaneturbo.teachers.multi_view import NEGATIVE, Embed, MultiView, placed
from triplaneturbo.utils.random_streams import RandomStreams

SIZE = 256  # side of the pictures that it encodes

UNET: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": SIZE,
    "scaling_factor": 0.18215,
}


class MVDream(MultiView):
    """Looks at all four views, in colour.

    Attributes:
        view_by_view: see `sample_latents`.

    Args:
        vae: with its encoder.
        size: side of the pictures that it encodes.
        released: cameras as the released trainer gave them, 90 degrees off MVDream's own.
        unet, embed, negative, autocast: see `MultiView`.
    """

    name = "mvdream"
    reads: tuple[str, ...] = ("rgb",)

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        embed: Embed,
        negative: str = NEGATIVE,
        size: int = SIZE,
        released: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(unet, embed, negative, autocast)
        self.vae, self.size, self.released = vae, size, released
        self.view_by_view = False

    @classmethod
    def load(cls, path: Path, embed: Embed, **options: Any) -> MVDream:
        """From the released file.

        Raises:
            UserError: it cannot be read, or is of another model.
        """
        state = read_ldm(path)
        return cls(unet_from(state, UNET, path), vae_from(state, VAE, path), embed, **options)

    @property
    def networks(self) -> list[nn.Module]:
        """All that needs the device while it is asked."""
        return [self.unet, self.vae]

    def _cameras(self, cameras: Cameras) -> Tensor:
        return placed(cameras, turned=not self.released).flatten(1)

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Latents of all views, sampled from the VAE's posterior: [B, V, 4, h, h]."""
        images = seen.rgb.flatten(0, 1).movedim(-1, 1)  # [B * V, 3, H, W]
        images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        latents = sample_latents(self.vae, images * 2 - 1, rng, self.autocast, self.view_by_view)
        return latents.unflatten(0, (-1, scenes.views))
