"""How far two meshes are apart, by trimesh and scipy."""

from __future__ import annotations

import trimesh
from scipy.spatial import cKDTree

from triplaneturbo.mesh.mesh import Mesh


def farthest(one: Mesh, other: Mesh) -> float:
    """From a vertex of the one to the nearest of many points on the other."""
    mesh = trimesh.Trimesh(other.vertices.numpy(), other.faces.numpy(), process=False)
    points, _ = trimesh.sample.sample_surface(mesh, 400_000, seed=0)
    return float(cKDTree(points).query(one.vertices.numpy())[0].max())


def cells_apart(one: Mesh, other: Mesh, resolution: int) -> float:
    """The larger of both ways, in cells of a grid of so many nodes along each side of [-1, 1]^3."""
    return max(farthest(one, other), farthest(other, one)) / 2 * (resolution - 1)
