"""How far two meshes are apart, by trimesh and scipy."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from triplaneturbo.mesh.mesh import Mesh


def distances(one: Mesh, other: Mesh) -> np.ndarray:
    """From each vertex of the one to the nearest of many points on the other [V]."""
    mesh = trimesh.Trimesh(other.vertices.numpy(), other.faces.numpy(), process=False)
    points, _ = trimesh.sample.sample_surface(mesh, 400_000, seed=0)
    return cKDTree(points).query(one.vertices.numpy())[0]


def farthest(one: Mesh, other: Mesh) -> float:
    """From a vertex of the one to the other."""
    return float(distances(one, other).max())


def cells_apart(one: Mesh, other: Mesh, resolution: int, share: float = 1.0) -> float:
    """The larger of both ways, in cells of a grid of so many nodes along each side of [-1, 1]^3.

    Args:
        share: of the vertices, the nearest, that count.
    """
    both = (np.quantile(distances(*pair), share) for pair in ((one, other), (other, one)))
    return float(max(both)) / 2 * (resolution - 1)
