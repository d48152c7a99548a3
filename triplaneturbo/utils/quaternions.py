"""Quaternions as rotations: (w, x, y, z), scalar first, as gsplat and the splat PLY order them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_matrices(quaternions: Tensor) -> Tensor:
    """Return the rotation matrices [..., 3, 3] of quaternions [..., 4] of any non-zero length."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Return the products [..., 4]: the rotation `second`, followed by the rotation `first`."""
    a, b, c, d = first.unbind(-1)
    w, x, y, z = second.unbind(-1)
    return torch.stack(
        (
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ),
        dim=-1,
    )


def from_z_axis(directions: Tensor) -> Tensor:
    """Return unit quaternions [..., 4] of the shortest rotations from +z to unit vectors [..., 3].

    For -z, where the shortest rotation is ambiguous, it is half a turn about x.
    """
    x, y, z = directions.unbind(-1)
    quaternions = torch.stack((1 + z, -y, x, torch.zeros_like(z)), dim=-1)
    half_turn = quaternions.new_tensor([0.0, 1.0, 0.0, 0.0])
    return torch.where((1 + z)[..., None] > 1e-6, F.normalize(quaternions, dim=-1), half_turn)
