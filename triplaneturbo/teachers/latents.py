"""What teachers in latents share: the autoencoder's posterior, and the precision that networks run in."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from triplaneturbo.randoms import Chance, normal


def sample_latents(
    vae: AutoencoderKL, images: Tensor, chance: Chance, autocast: torch.dtype | None
) -> Tensor:
    """Latents [B, 4, h, h], float32 and scaled, of images [B, 3, H, W] in [-1, 1]; differentiable in these.

    The noise is drawn where `chance` lives; `autocast` as in `precision`.
    """
    with precision(autocast, images.device):
        posterior = vae.encode(images.to(vae.dtype)).latent_dist
    noise = normal(chance, posterior.mean.shape).to(images)
    return (posterior.mean.float() + posterior.std.float() * noise) * vae.config.scaling_factor


def precision(autocast: torch.dtype | None, device: torch.device) -> torch.autocast:
    """The context in which a network runs in that precision; None: in that of its weights."""
    return torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None)
