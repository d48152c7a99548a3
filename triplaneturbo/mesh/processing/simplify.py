"""Fewer faces, by quadric edge collapses (the library fast-simplification)."""

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

# The library keeps the mesh that it works on in one place for the whole process.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Simplified:
    """What `simplify` did.

    Attributes:
        before, after: number of faces.
        open_edges: edges of the result with other than two faces. The library keeps a closed surface free of
            holes, but where sheets nearly touch it may join two edges into one with four faces.
    """

    before: int
    after: int
    open_edges: int


def simplify(mesh: Mesh, budget: int) -> tuple[Mesh, Simplified]:
    """Reduce a mesh to at most (about) `budget` faces; a mesh within the budget stays as it is.

    Normals, if there are any, are computed anew; vertex colours become the mean of the vertices that went
    into each. To be done before unwrapping: texture coordinates would not survive.

    Args:
        mesh: without texture coordinates.
        budget: the number of faces wanted, at least 4. The library may stop a little above it where no
            collapse would keep the surface proper.

    Returns:
        The mesh and what was done.

    Raises:
        UserError: a budget under 4.
        ValueError: a mesh with texture coordinates.
    """
    if budget < MINIMUM_FACES:
        raise UserError(f"A mesh cannot have {budget} faces; ask for at least {MINIMUM_FACES}.")
    before = len(mesh.faces)
    if budget >= before:
        return mesh, Simplified(before, before, open_edges(mesh.faces))
    if mesh.uv is not None:
        raise ValueError("simplify a mesh before unwrapping it")
    import fast_simplification

    vertices = mesh.vertices.detach().cpu().float().numpy()
    faces = mesh.faces.cpu().numpy().astype(np.int32)
    with _one_at_a_time:
        few, kept, steps = fast_simplification.simplify(
            vertices, faces, target_count=budget, return_collapses=True
        )
        colors = None
        if mesh.colors is not None:
            _, _, origin = fast_simplification.replay_simplification(vertices, faces, steps)
            colors = _means(mesh.colors, torch.from_numpy(origin).long().to(mesh.colors.device), len(few))
    like = {"device": mesh.vertices.device}
    small = Mesh(
        torch.from_numpy(few).to(mesh.vertices),
        torch.from_numpy(kept).to(**like, dtype=torch.int64),
        colors=colors,
    )
    small = tidy(small)
    if mesh.normals is not None:
        small = small.replace(normals=smooth_normals(small.vertices, small.faces))
    return small, Simplified(before, len(small.faces), open_edges(small.faces))


def open_edges(faces: Tensor) -> int:
    """How many edges of the faces [F, 3] have other than two faces; 0 for a closed manifold surface."""
    ends = torch.stack((faces, faces.roll(-1, 1)), dim=-1).reshape(-1, 2).sort(1).values  # [3F, 2]
    if len(ends) == 0:
        return 0
    keys = ends[:, 0] * (int(faces.max()) + 1) + ends[:, 1]
    return int((keys.unique(return_counts=True)[1] != 2).sum())


def _means(values: Tensor, group: Tensor, count: int) -> Tensor:
    """The mean [count, C] of the values [V, C] of each group [V]."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, group, values)
    size = values.new_zeros(count).index_add(0, group, torch.ones_like(values[:, 0]))
    return total / size.clamp_min(1)[:, None]
