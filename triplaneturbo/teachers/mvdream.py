"""MVDream: a multi-view diffusion model of four colour views in latent space (arXiv 2308.16512).

The released checkpoint contains a U-Net and a VAE; the text encoder is that of Stable Diffusion 2.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.catalog import get_mvdream
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.latents import sample_latents
from triplaneturbo.teachers.ldm import build_unet, build_vae, read_ldm
from triplaneturbo.teachers.loader import Embed, MetaTeacher, TeacherContext, TeacherLoader, meta_embed
from triplaneturbo.teachers.multi_view import NEGATIVE, MultiView, normalized_c2w
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.random_streams import RandomStreams

SIZE = 256  # image size of its VAE encoder, in pixels

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
    """MVDream teacher; reads the colours of all four views.

    Attributes:
        view_by_view: see `sample_latents`.

    Args:
        vae: needs its encoder only.
        size: image size of the VAE encoder, in pixels.
        released: use the released trainer's cameras, which are 90 degrees off MVDream's convention.
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
        """Load the released checkpoint.

        Raises:
            UserError: if it is unreadable or of another model.
        """
        state = read_ldm(path)
        return cls(build_unet(state, UNET, path), build_vae(state, VAE, path), embed, **options)

    @property
    def networks(self) -> list[nn.Module]:
        """Networks that must be on the device during a call."""
        return [self.unet, self.vae]

    def _cameras(self, cameras: Cameras) -> Tensor:
        return normalized_c2w(cameras, rotate=not self.released).flatten(1)

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Sample the VAE latents of all views: [B, V, 4, h, h]."""
        images = renderings.rgb.flatten(0, 1).movedim(-1, 1)  # [B * V, 3, H, W]
        images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        latents = sample_latents(self.vae, images * 2 - 1, rng, self.autocast, self.view_by_view)
        return latents.unflatten(0, (-1, scenes.views))


def _load(context: TeacherContext, checkpoint: Path) -> MVDream:
    teacher = MVDream.load(checkpoint, context.embed, released=context.released, autocast=context.autocast)
    teacher.view_by_view = context.view_by_view
    teacher.refining = context.refining
    context.place(teacher.networks)
    return teacher


def _probe(unet: dict[str, Any], vae: dict[str, Any], dtype: torch.dtype) -> MetaTeacher:
    networks = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    own, encoder = (nn.Module.to(network, dtype) for network in networks)
    return MetaTeacher(MVDream(own, encoder, meta_embed(UNET["cross_attention_dim"], dtype)))


LOADER = TeacherLoader(_load, get_mvdream, TeacherSettings(guidance=(20.0, 10.0), shift=0.0), _probe)
