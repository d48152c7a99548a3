"""Small random bases of a triplane generator, its inputs, and nonzero adapters."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from triplaneturbo.models.adapter import adapter_tensors, set_adapter_tensors
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator

UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": 24,
    "use_linear_projection": True,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


VAE = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}


CONFIG = GeneratorConfig(
    plane_rank=3, cross_rank=5, vae_rank=2, conv_rank=4, plane_channels=4, mlp_width=8, latent_size=8
)


def bases() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    torch.manual_seed(1)
    return UNet2DConditionModel(**UNET).eval(), AutoencoderKL(**VAE).eval()


def stir(generator: TriplaneGenerator, seed: int = 2) -> None:
    """Give the active adapter's zero factors values, so that it changes something."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: 0.1 * torch.randn(value.shape, generator=draw) if "lora_B" in name else value
        for name, value in adapter_tensors(generator).items()
    }
    set_adapter_tensors(generator, tensors, "test")


def inputs(prompts: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(prompts, 6, 4, 8, 8), torch.randn(prompts, 77, 24)
