"""Colour spaces (sRGB and linear) and bilinear texture sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def srgb_to_linear(color: Tensor) -> Tensor:
    """Convert sRGB values in [0, 1] (any shape) to linear light."""
    return torch.where(color <= 0.04045, color / 12.92, ((color.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """Convert linear light in [0, 1] (any shape) to sRGB values."""
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    )


def sample(image: Tensor, uv: Tensor) -> Tensor:
    """Sample an image bilinearly; differentiable in image and uv.

    Args:
        image: floating-point image [H, W, C], row 0 at the top.
        uv: texture coordinates [N, 2], (0, 0) at the top left and (1, 1) at the bottom right corner, as in
            glTF; clamped to the border.

    Returns:
        [N, C].
    """
    grid = (uv * 2 - 1).to(image.dtype)[None, None]  # [1, 1, N, 2]
    planes = image.permute(2, 0, 1)[None]  # [1, C, H, W]
    values = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values[0, :, 0].T  # [N, C]
