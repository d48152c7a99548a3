"""What a mesh fills: voxels of [-1, 1]^3, and how much two sets of them have in common."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from triplaneturbo.utils.kernels import kernel


def centres(size: int) -> np.ndarray:
    """The voxels' middles along each axis: [size]."""
    return (np.arange(size) + 0.5) * (2 / size) - 1


def filled(vertices: Tensor, faces: Tensor, size: int) -> np.ndarray:
    """Which voxels' middles lie inside a closed surface: bool [size, size, size], indexed [x, y, z].

    Args:
        vertices: [V, 3].
        faces: [F, 3], counter-clockwise seen from outside; where surfaces lie within each other, what any of
            them encloses is inside, less what they enclose the other way round.
    """
    points, corners = vertices.detach().cpu().double().numpy(), faces.cpu().numpy()
    steps = np.zeros((size, size, size + 1), dtype=np.int16)
    _cross(points, corners, steps)
    # How often the surface, seen from a voxel, closes above it.
    return np.cumsum(steps[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:] > 0


@kernel
def _cross(points, faces, steps):
    """In each column along z: +1 at the first voxel above an upward face, -1 at that above a downward one."""
    size = steps.shape[0]
    scale = size / 2.0
    # A hair beside the middles: no column runs along an edge of a surface made on a regular grid.
    aside_x, aside_y = 3.1e-7, 1.7e-7
    for face in range(len(faces)):
        ax, ay, az = points[faces[face, 0]]
        bx, by, bz = points[faces[face, 1]]
        cx, cy, cz = points[faces[face, 2]]
        left = max(0, int(np.ceil((min(ax, bx, cx) + 1) * scale - 0.51)))
        right = min(size - 1, int(np.floor((max(ax, bx, cx) + 1) * scale - 0.49)))
        low = max(0, int(np.ceil((min(ay, by, cy) + 1) * scale - 0.51)))
        high = min(size - 1, int(np.floor((max(ay, by, cy) + 1) * scale - 0.49)))
        for i in range(left, right + 1):
            x = (i + 0.5) / scale - 1 + aside_x
            for j in range(low, high + 1):
                y = (j + 0.5) / scale - 1 + aside_y
                # Each is the exact negative of what the face across that edge gets.
                a = (bx - x) * (cy - y) - (by - y) * (cx - x)
                b = (cx - x) * (ay - y) - (cy - y) * (ax - x)
                c = (ax - x) * (by - y) - (ay - y) * (bx - x)
                upward = a > 0 and b > 0 and c > 0
                if not upward and not (a < 0 and b < 0 and c < 0):
                    continue
                z = (a * az + b * bz + c * cz) / (a + b + c)
                below = int(np.ceil((z + 1) * scale - 0.5))  # voxels whose middle lies below
                steps[i, j, min(max(below, 0), size)] += 1 if upward else -1


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boolean arrays of one shape; 0 where both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0
