"""MVDream and RichDreamer with a tiny random U-Net."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer

TINY = {
    "block_out_channels": (32, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}


def embed(captions: list[str]) -> Tensor:
    return torch.ones(len(captions), 77, 24)


def mvdream(vae: AutoencoderKL | None = None) -> MVDream:
    """Return a tiny MVDream; its default autoencoder, without downsampling, is too slow to encode with."""
    unet = UNet2DConditionModel(**TINY).eval().requires_grad_(False)
    return MVDream(unet, vae or AutoencoderKL(), embed)


def encoding_mvdream() -> MVDream:
    """Return a tiny MVDream that encodes 256^2 images to latents of 32^2."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
    )  # fmt: skip
    return mvdream(vae)


def richdreamer() -> RichDreamer:
    return RichDreamer(UNet2DConditionModel(**TINY).eval().requires_grad_(False), embed, size=8)
