"""Mesh simplification by quadric edge collapses (the library fast-simplification)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals, tidy

MINIMUM_FACES = 4

# The library stores its mesh in global state, so only one thread can use it at a time.
_library_lock = threading.Lock()


@dataclass(frozen=True)
class Simplified:
    """What `simplify` did.

    Attributes:
        before: number of faces before.
        after: number of faces after.
        open_edges: edges of the result that do not have exactly two faces. The library keeps a closed surface
            free of holes, but where sheets nearly touch it may merge two edges into one with four faces.
    """

    before: int
    after: int
    open_edges: int


def simplify(mesh: Mesh, budget: int) -> tuple[Mesh, Simplified]:
    """Reduce a mesh to about `budget` faces; return it unchanged if it has no more.

    Normals, if present, are recomputed; the colour of a vertex becomes the mean colour of the vertices that
    were merged into it. Simplify before unwrapping: texture coordinates are not supported.

    Args:
        mesh: without texture coordinates.
        budget: target number of faces, at least 4. The library may stop slightly above it if no collapse is
            left that preserves the topology.

    Returns:
        The mesh and a summary.

    Raises:
        UserError: the budget is below 4.
        ValueError: the mesh has texture coordinates.
    """
    if budget < MINIMUM_FACES:
        raise UserError(f"Invalid number of faces {budget}; use at least {MINIMUM_FACES}.")
    before = len(mesh.faces)
    if budget >= before:
        return mesh, Simplified(before, before, open_edges(mesh.faces))
    if mesh.uv is not None:
        raise ValueError("mesh has texture coordinates; simplify it before unwrapping")
    import fast_simplification

    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.cpu().numpy().astype(np.int32)
    with _library_lock:
        points, triangles, collapses = fast_simplification.simplify(
            vertices, faces, target_count=budget, return_collapses=True
        )
        colors = None
        if mesh.colors is not None:
            _, _, origin = fast_simplification.replay_simplification(vertices, faces, collapses)
            colors = _means(mesh.colors, torch.from_numpy(origin).long().to(mesh.colors.device), len(points))
    simplified = Mesh(
        torch.from_numpy(points).to(mesh.vertices),
        torch.from_numpy(triangles).to(mesh.vertices.device, torch.int64),
        colors=colors,
    )
    simplified = tidy(simplified)
    if mesh.normals is not None:
        simplified = simplified.replace(normals=smooth_normals(simplified.vertices, simplified.faces))
    return simplified, Simplified(before, len(simplified.faces), open_edges(simplified.faces))


def open_edges(faces: Tensor) -> int:
    """Count the edges of the faces [F, 3] without exactly two faces; 0 for a closed manifold surface."""
    ends = torch.stack((faces, faces.roll(-1, 1)), dim=-1).reshape(-1, 2).sort(1).values  # [3F, 2]
    if len(ends) == 0:
        return 0
    keys = ends[:, 0] * (int(faces.max()) + 1) + ends[:, 1]
    return int((keys.unique(return_counts=True)[1] != 2).sum())


def _means(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Return the mean [count, C] of the values [V, C] of each group, given group indices [V]."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, group, values)
    size = values.new_zeros(count).index_add(0, group, torch.ones_like(values[:, 0]))
    return total / size.clamp_min(1)[:, None]
