"""Vertex tangents in the convention of MikkTSpace, as glTF requires, and normals in tangent space.

Blender and most engines compute tangents in this convention, and glTF prescribes it for files without
tangents, so that a normal map looks the same whether a program reads the tangents of the file or computes its
own. A corner's tangent points along increasing u; a vertex has the mean of its corners' tangents, each
projected to the vertex' tangent plane and weighted by the angle of the face at that corner.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import components


def split_frames(mesh: Mesh) -> Mesh:
    """Split vertices whose faces have no common tangent frame, so that each vertex has a single tangent.

    Faces share a frame at a vertex if edges connect them there and they have the same winding in the atlas.

    Args:
        mesh: with `uv`.

    Returns:
        The same mesh if there are no such vertices; else a mesh with one vertex per frame.
    """
    assert mesh.uv is not None
    faces = mesh.faces
    corner = faces.reshape(-1)  # [3F]
    frame = _corner_frames(faces, _signed_areas(faces, mesh.uv).sign())  # [3F]
    count = int(frame.max()) + 1 if len(frame) else 0
    if count == len(corner.unique()):
        return mesh
    vertex = corner.new_zeros(count).scatter(0, frame, corner)  # a frame's corners have one vertex
    # Keep the order of the vertices.
    order = vertex.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(count, device=order.device))
    kept = vertex[order]
    parts = {
        name: part[kept]
        for name in ("vertices", "normals", "colors", "uv", "tangents")
        if (part := getattr(mesh, name)) is not None
    }
    return mesh.replace(faces=rank[frame].view(-1, 3), **parts)


def _corner_frames(faces: Tensor, winding: Tensor) -> Tensor:
    """Return the frame of each corner [3F] of faces [F, 3], given their winding in the atlas [F].

    The winding is 1, -1, or 0 (compatible with both).
    """
    start, end = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F]: edges by their first corner
    keys = torch.minimum(start, end) * (int(faces.max()) + 1) + torch.maximum(start, end)
    keys, order = keys.sort(stable=True)
    pair = (keys[1:] == keys[:-1]).nonzero()[:, 0]
    one, other = order[pair], order[pair + 1]
    alike = winding[one // 3] * winding[other // 3] >= 0
    one, other = one[alike], other[alike]

    def next_corner(edge: Tensor) -> Tensor:
        """Return the corner at the end of an edge."""
        return edge - edge % 3 + (edge + 1) % 3

    turned = start[one] == end[other]  # true for consistently oriented faces
    first = torch.where(turned, next_corner(other), other)
    second = torch.where(turned, other, next_corner(other))
    return components(torch.cat((one, next_corner(one))), torch.cat((first, second)), len(start))


def _signed_areas(faces: Tensor, uv: Tensor) -> Tensor:
    """Return twice the signed area of each face in the atlas [F], for v growing upward."""
    a, b, c = uv[faces].unbind(1)
    edge1, edge2 = b - a, c - a
    return edge1[:, 0] * edge2[:, 1] - edge2[:, 0] * edge1[:, 1]


def vertex_tangents(vertices: Tensor, faces: Tensor, uv: Tensor, normals: Tensor) -> Tensor:
    """Compute MikkTSpace tangents for a normal map whose green channel points up in the image.

    The tangent points along increasing u, the bitangent w * cross(normal, tangent) along decreasing v (v
    grows downward in the image).

    Args:
        vertices: [V, 3], one per tangent frame (`split_frames`).
        faces: [F, 3].
        uv: [V, 2].
        normals: unit [V, 3].

    Returns:
        unit tangents and handedness +-1 [V, 4].
    """
    positions, at = vertices[faces], uv[faces]  # [F, 3, 3], [F, 3, 2]
    edge1, edge2 = positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0]
    winding = _signed_areas(faces, uv)
    dv1, dv2 = at[:, 1, 1] - at[:, 0, 1], at[:, 2, 1] - at[:, 0, 1]
    along_u = F.normalize((edge1 * dv2[:, None] - edge2 * dv1[:, None]) * winding.sign()[:, None], dim=1)
    tangent, side = torch.zeros_like(vertices), torch.zeros_like(vertices[:, 0])
    for corner in range(3):
        vertex = faces[:, corner]
        normal = normals[vertex]
        ahead, behind = (
            _project_to_plane(positions[:, (corner + step) % 3] - positions[:, corner], normal)
            for step in (1, 2)
        )
        angle = (ahead * behind).sum(1, keepdim=True).clamp(-1, 1).acos()
        tangent = tangent.index_add(0, vertex, _project_to_plane(along_u, normal) * angle)
        side = side.index_add(0, vertex, winding.sign())
    # Without area in the atlas, use an arbitrary direction in the tangent plane.
    arbitrary = _project_to_plane(F.one_hot(normals.abs().argmin(1), 3).to(normals.dtype), normals)
    known = tangent.norm(dim=1, keepdim=True) > 1e-12
    tangent = F.normalize(torch.where(known, tangent, arbitrary), dim=1)
    return torch.cat((tangent, torch.where(side > 0, -1.0, 1.0).to(tangent.dtype)[:, None]), 1)


def _project_to_plane(vectors: Tensor, normals: Tensor) -> Tensor:
    """Project vectors [N, 3] to the planes of unit normals [N, 3] and normalise them."""
    return F.normalize(vectors - normals * (vectors * normals).sum(1, keepdim=True), dim=1)


def to_tangent_space(wanted: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
    """Express normals in tangent space, so that x T + y w cross(N, T) + z N reproduces `wanted`.

    Args:
        wanted: unit normals in model space [N, 3].
        normals: interpolated vertex normals [N, 3]; normalised here, as viewers do.
        tangents: interpolated tangents with handedness [N, 4]; normalised likewise.

    Returns:
        unit vectors [N, 3]. Where `wanted` points into the surface, which a normal map cannot represent, z is
        clamped to a small positive value.
    """
    n, t = F.normalize(normals, dim=1), F.normalize(tangents[:, :3], dim=1)
    b = torch.linalg.cross(n, t) * tangents[:, 3:].sign()
    y = (wanted * b).sum(1) / (b * b).sum(1).clamp_min(1e-12)
    # Interpolated T and N need not be orthogonal: solve a 2 x 2 system for their coefficients.
    tn, wt, wn = (t * n).sum(1), (wanted * t).sum(1), (wanted * n).sum(1)
    square = (1 - tn * tn).clamp_min(1e-6)
    local = torch.stack(((wt - tn * wn) / square, y, (wn - tn * wt) / square), 1)
    local[:, 2] = local[:, 2].clamp_min(0.05)
    return F.normalize(local, dim=1)
