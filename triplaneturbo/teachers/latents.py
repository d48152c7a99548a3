"""What teachers in latents share: the autoencoder's posterior, and the precision that networks run in."""

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
    """Latents [B, 4, h, h], float32 and scaled, of images [B, 3, H, W] in [-1, 1]; differentiable in these.

    The noise is drawn where `chance` lives; `autocast` as in `precision`.

    Args:
        view_by_view: encode one image at a time, and again in the backward pass: the memory of one image, for
            a third more of the encoder's time.
    """

    def moments(part: Tensor) -> Tensor:
        with precision(autocast, images.device):
            return vae.encode(part.to(vae.dtype)).latent_dist.parameters

    if view_by_view:
        found = torch.cat([checkpoint(moments, one, use_reentrant=False) for one in images.split(1)])
    else:
        found = moments(images)
    posterior = DiagonalGaussianDistribution(found)
    noise = normal(rng, posterior.mean.shape).to(images)
    return (posterior.mean.float() + posterior.std.float() * noise) * vae.config.scaling_factor


def precision(autocast: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    """The context in which a network runs in that precision; None: in that of its weights."""
    return nullcontext() if autocast is None else torch.autocast(device.type, autocast)
