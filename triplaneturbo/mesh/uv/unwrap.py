"""UV unwrapping: compute texture coordinates for a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.mesh.uv.charts import face_neighbours, group_faces
from triplaneturbo.mesh.uv.packing import pack
from triplaneturbo.mesh.uv.registry import find_unwrapper
from triplaneturbo.utils.kernels import kernel

if TYPE_CHECKING:
    from triplaneturbo.mesh.uv.registry import Charts

TEXTURE_SIZES = (512, 4096)


def check_texture_size(texture_size: int) -> int:
    """Return the size as an int if it is a whole number from 512 to 4096 (not only powers of two).

    Raises:
        UserError: the size is invalid.
    """
    low, high = TEXTURE_SIZES
    whole = isinstance(texture_size, (int, np.integer)) and not isinstance(texture_size, bool)
    if not whole or not low <= texture_size <= high:
        raise UserError(f"Invalid texture size {texture_size!r}; use a whole number from {low} to {high}.")
    return int(texture_size)


def unwrap(mesh: Mesh, method: str = "fast", texture_size: int = 1024) -> Mesh:
    """Unwrap a mesh into non-overlapping texture coordinates.

    Args:
        mesh: any triangle mesh; faces without area or with non-finite corners are accepted.
        method: a name in `registry.UNWRAPPERS`: "fast" (box projection, well under a second), "xatlas" (less
            distorted, far slower) or "uvunwrap" (the least distorted, a second).
        texture_size: texels per side of the texture that will be baked, 512 to 4096; determines the space
            between charts.

    Returns:
        The mesh with `uv`. Faces keep their order and winding. Vertices are duplicated, once for each chart
        that they are in (with their colour and normal; smooth normals are computed if there are none), in
        order of charts; vertices without a face are removed. Tangents, texture and normal map, which depend
        on the former coordinates, are removed.

    Raises:
        EmptySurfaceError: the mesh has no faces.
        UserError: the method is unknown or not installed, or the texture size is invalid.
    """
    charts_of = find_unwrapper(method).charts
    texture_size = check_texture_size(texture_size)
    if len(mesh.faces) == 0:
        raise EmptySurfaceError()
    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.detach().cpu().numpy().astype(np.int32)
    corners = vertices[faces]  # [F, 3, 3]
    finite = np.isfinite(corners).all((1, 2))
    uv = np.full((len(faces), 3, 2), 0.5 / texture_size)  # for faces that are not finite
    chart = np.zeros(len(faces), np.int32)
    if finite.any():
        uv[finite], chart[finite] = _unwrap_faces(
            faces[finite], vertices, corners[finite], charts_of, texture_size
        )
    chart[~finite] = chart.max() + 1

    start, order = group_faces(chart, int(chart.max()) + 1)
    new_faces, source, new_uv = _split_vertices(faces, uv, start, order, len(vertices))
    normals = smooth_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    device = mesh.vertices.device
    index = torch.from_numpy(source).to(device)
    return mesh.replace(
        vertices=mesh.vertices[index],
        faces=torch.from_numpy(new_faces).to(device),
        normals=normals[index],
        colors=None if mesh.colors is None else mesh.colors[index],
        uv=torch.from_numpy(new_uv).to(device),
        tangents=None,
        texture=None,
        normal_map=None,
    )


def _unwrap_faces(
    faces: np.ndarray, vertices: np.ndarray, corners: np.ndarray, charts_of: Charts, texture_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return texture coordinates [F, 3, 2] and charts [F] of finite faces."""
    centre = (corners.reshape(-1, 3).min(0) + corners.reshape(-1, 3).max(0)) / 2
    corners = corners - centre
    area = np.sqrt((np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) ** 2).sum(1)) / 2
    slack = 1e-3 * float(np.sqrt(area.sum())) / texture_size  # about a thousandth of a texel
    neighbours = face_neighbours(faces, len(vertices))
    uv, chart = charts_of(faces, corners, neighbours, slack)
    return pack(uv, chart, neighbours, area, texture_size)


@kernel
def _split_vertices(faces, uv, start, order, vertex_count):
    """Duplicate vertices per chart: faces int64 [F, 3], source vertices int64 [V], uv float32 [V, 2]."""
    last_chart = np.full(vertex_count, -1, np.int64)
    new_index = np.empty(vertex_count, np.int64)
    new_faces = np.empty(faces.shape, np.int64)
    source = np.empty(3 * faces.shape[0], np.int64)
    new_uv = np.empty((3 * faces.shape[0], 2), np.float32)
    count = 0
    for c in range(start.shape[0] - 1):
        for i in range(start[c], start[c + 1]):
            face = order[i]
            for k in range(3):
                vertex = faces[face, k]
                if last_chart[vertex] != c:
                    last_chart[vertex] = c
                    new_index[vertex] = count
                    source[count] = vertex
                    new_uv[count, 0] = min(max(uv[face, k, 0], 0.0), 1.0)
                    new_uv[count, 1] = min(max(uv[face, k, 1], 0.0), 1.0)
                    count += 1
                new_faces[face, k] = new_index[vertex]
    return new_faces, source[:count].copy(), new_uv[:count].copy()
