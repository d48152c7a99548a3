"""Helpers of latent-diffusion teachers: VAE posterior sampling and autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from triplaneturbo.utils.random_streams import RandomStreams, normal


def sample_latents(
    vae: AutoencoderKL,
    images: Tensor,
    rng: RandomStreams,
    autocast: torch.dtype | None,
    view_by_view: bool = False,
) -> Tensor:
    """Sample VAE latents of images; differentiable in `images`.

    Args:
        vae: needs its encoder only.
        images: [B, 3, H, W] in [-1, 1].
        rng: draws the posterior noise, on the generator's own device.
        autocast: see `autocast_context`.
        view_by_view: encode one image at a time with checkpointing: the memory of one image, for about a
            third more encoder time.

    Returns:
        Scaled latents [B, 4, h, h], float32.
    """

    def moments(part: Tensor) -> Tensor:
        with autocast_context(autocast, images.device):
            return vae.encode(part.to(vae.dtype)).latent_dist.parameters

    if view_by_view:
        parameters = torch.cat([checkpoint(moments, one, use_reentrant=False) for one in images.split(1)])
    else:
        parameters = moments(images)
    posterior = DiagonalGaussianDistribution(parameters)
    noise = normal(rng, posterior.mean.shape).to(images)
    return (posterior.mean.float() + posterior.std.float() * noise) * vae.config.scaling_factor


def autocast_context(autocast: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    """Return an autocast context; a null context for None (the precision of the weights)."""
    return nullcontext() if autocast is None else torch.autocast(device.type, autocast)
