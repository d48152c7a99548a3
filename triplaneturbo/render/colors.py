"""sRGB and linear light, and reading images at texture coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def srgb_to_linear(color: Tensor) -> Tensor:
    """sRGB values in [0, 1], any shape, as linear light."""
    return torch.where(color <= 0.04045, color / 12.92, ((color.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """Linear light in [0, 1], any shape, as sRGB values."""
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    )


def sample(image: Tensor, uv: Tensor) -> Tensor:
    """Read an image bilinearly; differentiable in both.

    Args:
        image: [H, W, C] floating point, row 0 on top.
        uv: points [N, 2], (0, 0) the image's top left corner and (1, 1) its bottom right one (as glTF has
            them); beyond the border the border's texels go on.

    Returns:
        [N, C].
    """
    grid = (uv * 2 - 1).to(image.dtype)[None, None]  # [1, 1, N, 2]
    planes = image.permute(2, 0, 1)[None]  # [1, C, H, W]
    read = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return read[0, :, 0].T  # [N, C]
