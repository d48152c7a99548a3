"""RichDreamer's normal-depth model: multi-view diffusion of normals and disparity (arXiv 2311.16918).

A U-Net like that of Stable Diffusion 1 that diffuses the four channels in pixel space, without a VAE; the
text encoder is that of Stable Diffusion 1.5 (CLIP ViT-L/14).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from triplaneturbo.models.catalog import get_richdreamer
from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache
from triplaneturbo.models.weights import load_text
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity
from triplaneturbo.teachers.ldm import build_unet, read_ldm
from triplaneturbo.teachers.loader import Embed, MetaTeacher, TeacherContext, TeacherLoader, meta_embed
from triplaneturbo.teachers.multi_view import NEGATIVE, MultiView, normalized_c2w
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.random_streams import RandomStreams

SIZE = 32  # size of the diffused images, in pixels

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


# Its text encoder is that of Stable Diffusion 1.5.
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}


class RichDreamer(MultiView):
    """RichDreamer teacher; reads normals and disparity of all four views.

    Args:
        size: size of the diffused images, in pixels.
        released: use the range [0, 1], as the released trainer does, instead of the authors' [-1, 1].
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
        """Load the released checkpoint.

        Raises:
            UserError: if it is unreadable or of another model.
        """
        return cls(build_unet(read_ldm(path), UNET, path), embed, **options)

    def _cameras(self, cameras: Cameras) -> Tensor:
        c2w = normalized_c2w(cameras, rotate=True)
        # Camera distance: twice the distance relative to the one at which a side of 2 fills the view.
        relative = cameras.positions.norm(dim=-1) * torch.tan(cameras.fovy / 2)  # [V]
        c2w[:, :3, 3] = c2w[:, :3, 3] * (2 * relative.float())[:, None]
        return c2w.flatten(1)

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Return pooled camera-space normals and disparity: [B, V, 4, h, h]; `rng` is unused."""
        images = normals_and_disparity(renderings, scenes).movedim(-1, 2).flatten(0, 1)  # [B * V, 4, H, W]
        pooled = F.adaptive_avg_pool2d(images, self.size).unflatten(0, (-1, scenes.views))
        return pooled if self.released else pooled * 2 - 1


def _load(context: TeacherContext, files: tuple[Path, Path]) -> RichDreamer:
    checkpoint, text_folder = files
    text = load_text(text_folder)
    if not context.text_on_cpu:
        is_cuda = context.device.type == "cuda"
        text.model.to(context.device, context.generator.dtype if is_cuda else torch.float32)
    embed = TextEmbeddingCache(text.embed, context.device)
    teacher = RichDreamer.load(checkpoint, embed, released=context.released, autocast=context.autocast)
    teacher.refining = context.refining
    context.place(teacher.networks)
    return teacher


def _probe(unet: dict[str, Any], vae: dict[str, Any], dtype: torch.dtype) -> MetaTeacher:
    own = nn.Module.to(UNet2DConditionModel(**UNET), dtype)
    text = CLIPTextModel(CLIPTextConfig.from_dict(TEXT)).eval().requires_grad_(False).to(dtype)
    return MetaTeacher(RichDreamer(own, meta_embed(UNET["cross_attention_dim"], dtype)), text=text)


LOADER = TeacherLoader(_load, get_richdreamer, TeacherSettings(guidance=(20.0, 20.0), shift=0.1), _probe)
