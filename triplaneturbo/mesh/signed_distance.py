"""Signed distances to a mesh that another program made, on a grid."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.surface_samples import SurfaceSamples
from triplaneturbo.mesh.voxels import centres, filled

_NEAR = 4.0  # sample spacings within which the distance to the tangent plane is used
_FEW = 4000  # samples that give the distances outside of the band
_BAND = 0.15  # distance to one of them, in world units, from which all samples are searched
_ENOUGH = 8  # voxels inside of a mesh that is a solid


class NoVolumeError(UserError):
    """A mesh encloses no volume, so it has no signed distances."""


def signed_distances(mesh: Mesh, samples: SurfaceSamples, size: int) -> Tensor:
    """Return distances to a surface at the centres of voxels, negative inside: float32 [size, size, size].

    A voxel is inside if two of the three axes say so, along each of which faces are counted with their
    orientation: small holes and overlapping parts do no harm. A mesh that is inside out is turned.

    Args:
        mesh: within [-1, 1]^3.
        samples: points on its surface; distances near the surface are those to their tangent planes.
        size: voxels along each axis of [-1, 1]^3, indexed [x, y, z].

    Raises:
        NoVolumeError: the mesh encloses no volume.
    """
    vertices, faces = mesh.vertices.detach().cpu().double(), mesh.faces.cpu()
    # By the divergence theorem, a surface with its faces outside encloses a positive volume.
    if float((face_normals(vertices, faces) * vertices[faces].mean(1)).sum()) < 0:
        faces = faces.flip(1)
    votes = np.zeros((size, size, size), dtype=np.uint8)
    for axis in range(3):
        turned = torch.roll(vertices, axis, dims=1)  # (z, x, y) for 1, (y, z, x) for 2
        inside = filled(turned, faces, size)
        votes += np.transpose(inside, np.roll(np.arange(3), -axis))
    inside = votes >= 2
    if np.count_nonzero(inside) < _ENOUGH:
        raise NoVolumeError("The mesh encloses no volume, so it cannot become a field; close its holes.")
    axis_centres = centres(size)
    points = np.stack(np.meshgrid(axis_centres, axis_centres, axis_centres, indexing="ij"), -1).reshape(-1, 3)
    surface, normals = samples.points.double().numpy(), samples.normals.double().numpy()
    # Far from the surface, the distance to a few of the samples is accurate enough.
    distance, _ = cKDTree(surface[:: max(1, len(surface) // _FEW)]).query(points)
    band = np.flatnonzero(distance < _BAND)
    exact, nearest = cKDTree(surface).query(points[band])
    plane = np.abs(np.einsum("nc,nc->n", points[band] - surface[nearest], normals[nearest]))
    distance[band] = np.where(exact < _NEAR * samples.spacing, plane, exact)
    signed = np.where(inside.reshape(-1), -distance, distance)
    return torch.from_numpy(signed.astype(np.float32)).view(size, size, size)
