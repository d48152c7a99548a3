"""Voxelization of closed meshes in [-1, 1]^3, and the intersection over union of voxel sets."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from triplaneturbo.utils.kernels import kernel


def centres(size: int) -> np.ndarray:
    """Return the centres of voxels along one axis of [-1, 1]^3, float64 [size]."""
    return (np.arange(size) + 0.5) * (2 / size) - 1


def filled(vertices: Tensor, faces: Tensor, size: int) -> np.ndarray:
    """Voxelize the interior of a closed surface.

    Args:
        vertices: [V, 3].
        faces: [F, 3], counter-clockwise seen from outside. A point is inside if its winding number is
            positive: nested surfaces form a union, and inverted ones are subtracted.
        size: voxels along each axis.

    Returns:
        whether the centre of each voxel is inside, bool [size, size, size], indexed [x, y, z].
    """
    points, corners = vertices.detach().cpu().double().numpy(), faces.cpu().numpy()
    crossings = np.zeros((size, size, size + 1), dtype=np.int16)
    _record_crossings(points, corners, crossings)
    # Winding number of a voxel: the signed number of crossings above it.
    return np.cumsum(crossings[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:] > 0


@kernel
def _record_crossings(points, faces, crossings):
    """Record where columns along z cross the surface, at the first voxel with its centre above the crossing.

    Adds 1 to `crossings` [size, size, size + 1] for a face that points up, and -1 for one that points down.
    """
    size = crossings.shape[0]
    scale = size / 2.0
    # A tiny shift off the centres, so that no column hits an edge of a surface made on a regular grid.
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
                # Each is the exact negative of the value for the face across that edge.
                a = (bx - x) * (cy - y) - (by - y) * (cx - x)
                b = (cx - x) * (ay - y) - (cy - y) * (ax - x)
                c = (ax - x) * (by - y) - (ay - y) * (bx - x)
                upward = a > 0 and b > 0 and c > 0
                if not upward and not (a < 0 and b < 0 and c < 0):
                    continue
                z = (a * az + b * bz + c * cz) / (a + b + c)
                below = int(np.ceil((z + 1) * scale - 0.5))  # number of voxels with a centre below
                crossings[i, j, min(max(below, 0), size)] += 1 if upward else -1


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boolean arrays of the same shape; 0 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0
