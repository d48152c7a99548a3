"""Image-space outputs and losses of volume rendering: teacher inputs and the sparsity loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def disparity(view_depth: Tensor, opacity: Tensor, distance: Tensor | float) -> Tensor:
    """Convert depth to the disparity input of a depth teacher.

    It is 1 at the near side of the bounding sphere of [-1, 1]^3, and 0 at its far side and in the background.

    Args:
        view_depth: sum of weights times distances along the ray [...], not normalised.
        opacity: [...]; blends `view_depth` with the depth of the far side.
        distance: distance of the camera from the origin, in world units, broadcastable.

    Returns:
        [...] in [0, 1].
    """
    reach = math.sqrt(3)
    far = distance + reach
    mixed = view_depth * opacity + far * (1 - opacity)
    return ((far - mixed) / (2 * reach)).clamp(0, 1)


def camera_normals(normal: Tensor, opacity: Tensor, c2w: Tensor) -> Tensor:
    """Convert world normals to the normal map input of a normal teacher.

    Normals are in camera axes with x negated, mapped to [0, 1] by (n + 1) / 2. A surface that faces the
    camera is (0.5, 0.5, 1), and so is the background.

    Args:
        normal: world-space normals of any length [..., 3].
        opacity: [...].
        c2w: camera-to-world matrices [..., 4, 4] or [..., 3, 3], broadcastable.

    Returns:
        [..., 3] in [0, 1].
    """
    camera = (F.normalize(normal, dim=-1)[..., None, :] @ c2w[..., :3, :3]).squeeze(-2)
    image = (F.normalize(camera * camera.new_tensor([-1.0, 1.0, 1.0]), dim=-1) + 1) / 2
    return torch.lerp(image.new_tensor([0.5, 0.5, 1.0]), image, opacity[..., None])


def sparsity(opacity: Tensor) -> Tensor:
    """Sparsity loss: mean of sqrt(opacity^2 + 0.01), a scalar."""
    return (opacity.square() + 0.01).sqrt().mean()
