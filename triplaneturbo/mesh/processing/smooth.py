"""Mesh smoothing without shrinking: Taubin's filter (the library trimesh)."""

from __future__ import annotations

import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals, weld

# Weights of the step toward the neighbours' mean and of the step back (lambda and -mu in the paper). One pass
# scales a component of frequency k (0: constant, 2: alternating between vertices) by
# (1 - 0.5 k)(1 + 0.52 k). With equal weights thin legs lost 6 % of their volume in 50 passes, with 0.53 other
# shapes gained 2 %; with 0.52 the volume changed by at most 2 %.
LAMBDA, MU = 0.5, 0.52


def smooth(mesh: Mesh, passes: int) -> Mesh:
    """Remove detail at the scale of the faces while preserving the shape and nearly all of its volume.

    Each pass moves every vertex half the way to the mean of its neighbours and then about as far back
    (G. Taubin, "A signal processing approach to fair surface design", 1995). Faces do not change, so that a
    closed surface stays closed; vertices keep their colours; normals are recomputed if present. Smooth before
    unwrapping: texture coordinates are not supported.

    Args:
        mesh: without texture coordinates; vertices at the same position move together.
        passes: number of passes; 0 returns the mesh unchanged.

    Raises:
        ValueError: `passes` is negative, or the mesh has texture coordinates.
    """
    if passes < 0:
        raise ValueError(f"passes must be at least 0, not {passes}")
    if mesh.uv is not None:
        raise ValueError("mesh has texture coordinates; smooth it before unwrapping")
    if passes == 0 or len(mesh.faces) == 0:
        return mesh
    from trimesh import Trimesh
    from trimesh.smoothing import filter_taubin

    welded = weld(mesh.vertices)
    shape = Trimesh(
        mesh.vertices[welded.first].detach().cpu().double().numpy(),
        welded.index[mesh.faces].cpu().numpy(),
        process=False,
    )
    filter_taubin(shape, LAMBDA, MU, 2 * passes)  # trimesh counts single steps
    vertices = torch.from_numpy(shape.vertices.copy()).to(mesh.vertices)[welded.index]
    normals = None if mesh.normals is None else smooth_normals(vertices, mesh.faces)
    return mesh.replace(vertices=vertices, normals=normals)
