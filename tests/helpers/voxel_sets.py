"""Surfaces of voxels: closed, oriented, and full of edges and vertices at which solids touch."""

import numpy as np
import torch

from triplaneturbo.mesh.mesh import Mesh


def voxel_surface(full):
    """The surface of the cubes that are set in a bool array [n, n, n], each with sides of 1 / n."""
    padded = np.pad(full, 1)
    quads = []
    for cell in np.argwhere(padded):
        for axis in range(3):
            ahead, u, v = np.roll(np.eye(3, dtype=int), -axis, axis=0)
            for side in (1, -1):
                if padded[tuple(cell + side * ahead)]:
                    continue
                base = cell + ahead * (side > 0)
                quads.append([base, base + u, base + u + v, base + v][::side])
    places, index = np.unique(np.array(quads).reshape(-1, 3), axis=0, return_inverse=True)
    quad = index.reshape(-1, 4)
    faces = np.concatenate((quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]))
    return Mesh(torch.tensor(places, dtype=torch.float32) / len(full), torch.tensor(faces))


def random_voxels(seed):
    """At least one cube, of up to 6^3."""
    draw = np.random.default_rng(seed)
    side = draw.integers(2, 7)
    full = draw.random((side, side, side)) < draw.uniform(0.1, 0.9)
    full[0, 0, 0] = True
    return full
