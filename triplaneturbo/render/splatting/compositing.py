"""Front-to-back compositing of Gaussians in batches of tiles, with a hand-written backward pass.

The exponent of a Gaussian is a quadratic polynomial of the pixel's position, so that all exponents of a
batch are one matrix product. The backward pass keeps only the inputs and computes the weights again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from triplaneturbo.render.splatting.projection import MIN_ALPHA

MAX_ALPHA = 0.999
PADDING = -1e4
"""Logarithm of the opacity of padding, whose alpha is exactly 0."""


def monomials(size: int, like: Tensor) -> Tensor:
    """Return (1, x, y, x^2, x y, y^2) at pixel centres relative to the tile's centre [size^2, 6]."""
    axis = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5 - size / 2
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), dim=-1)


def polynomials(offsets: Tensor, conics: Tensor, log_opacities: Tensor) -> Tensor:
    """Return the coefficients [..., 6], in the order of `monomials`, of log(alpha).

    Args:
        offsets: means relative to the tile's centre, in pixels [..., 2].
        conics: inverse covariances (xx, xy, yy) [..., 3].
        log_opacities: [...].
    """
    x, y = offsets.unbind(-1)
    xx, xy, yy = conics.unbind(-1)
    linear_x, linear_y = xx * x + xy * y, xy * x + yy * y
    constant = log_opacities - 0.5 * (x * linear_x + y * linear_y)
    return torch.stack((constant, linear_x, linear_y, -0.5 * xx, -xy, -0.5 * yy), dim=-1)


def composite(coefficients: Tensor, features: Tensor, pixels: Tensor) -> Tensor:
    """Return sums of features weighted by visibility [T, P, C]; differentiable in all but the pixels.

    The weight of Gaussian k is alpha_k * product over j < k of (1 - alpha_j).

    Args:
        coefficients: polynomials of log(alpha), front to back [T, K, 6].
        features: [T, K, C].
        pixels: `monomials` [P, 6].
    """
    return _Composite.apply(coefficients, features, pixels)


def _weights(coefficients: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and the transmittance in front of each Gaussian [T, P, K]."""
    alpha = (pixels @ coefficients.mT).exp_().clamp_max_(MAX_ALPHA)
    alpha.masked_fill_(alpha < MIN_ALPHA, 0)
    transmittance = torch.ones_like(alpha)
    transmittance[..., 1:] = torch.cumprod(1 - alpha[..., :-1], dim=-1)
    return alpha, transmittance


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, features: Tensor, pixels: Tensor) -> Tensor:
        alpha, transmittance = _weights(coefficients, pixels)
        ctx.save_for_backward(coefficients, features, pixels)
        return alpha.mul_(transmittance) @ features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        coefficients, features, pixels = ctx.saved_tensors
        alpha, transmittance = _weights(coefficients, pixels)
        weights = alpha * transmittance
        grad_features = weights.mT @ grad
        grad_weights = grad @ features.mT  # [T, P, K]
        # An alpha scales its own weight and dims all Gaussians behind it.
        behind = weights.mul_(grad_weights).flip(-1).cumsum_(-1).flip(-1)  # from k on
        behind[..., :-1] = behind[..., 1:].clone()
        behind[..., -1] = 0
        grad_alpha = grad_weights.mul_(transmittance).sub_(behind.div_(1 - alpha))
        # d alpha / d log(alpha) = alpha, and 0 where alpha is clamped.
        grad_log = grad_alpha.mul_(alpha).masked_fill_(alpha >= MAX_ALPHA, 0)
        return grad_log.mT @ pixels, grad_features, None
