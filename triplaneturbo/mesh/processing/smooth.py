"""A surface smoothed without shrinking: Taubin's filter (the library trimesh)."""

from __future__ import annotations

import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals, weld

# A step toward the neighbours' mean and one back. They damp a wave of frequency k (0: the whole, 2: from
# vertex to vertex) by (1 - 0.5 k)(1 + 0.52 k). With equal steps thin legs lost 6 % of their volume in 50
# passes, with 0.53 others won 2 %; with 0.52 no more than 2 % were lost or won.
FORTH, BACK = 0.5, 0.52


def smooth(mesh: Mesh, passes: int) -> Mesh:
    """Even out what is as fine as the faces, and leave the shape and nearly all of its volume.

    Each pass moves every vertex half the way to the mean of its neighbours and then about as far away from it
    (Taubin, 1995). Faces stay as they are, so that a closed surface stays closed; colours stay with their
    vertices; normals are computed anew if there are any. To be done before unwrapping.

    Args:
        mesh: without texture coordinates; vertices at the same place move as one.
        passes: how often; 0 gives the same mesh back.

    Raises:
        ValueError: fewer than 0 passes, or a mesh with texture coordinates.
    """
    if passes < 0:
        raise ValueError(f"{passes} passes cannot be made")
    if mesh.uv is not None:
        raise ValueError("smooth a mesh before unwrapping it")
    if passes == 0 or len(mesh.faces) == 0:
        return mesh
    from trimesh import Trimesh
    from trimesh.smoothing import filter_taubin

    joined = weld(mesh.vertices)
    shape = Trimesh(
        mesh.vertices[joined.first].detach().cpu().double().numpy(),
        joined.index[mesh.faces].cpu().numpy(),
        process=False,
    )
    filter_taubin(shape, FORTH, BACK, 2 * passes)  # it counts steps
    vertices = torch.from_numpy(shape.vertices.copy()).to(mesh.vertices)[joined.index]
    normals = None if mesh.normals is None else smooth_normals(vertices, mesh.faces)
    return mesh.replace(vertices=vertices, normals=normals)
