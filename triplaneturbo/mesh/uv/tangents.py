"""Tangents along the texture by the convention of MikkTSpace, as glTF wants them, and normals in their frame.

Blender and most engines make tangents by that convention themselves, and glTF wants it where a file has none,
so a normal map looks the same whether a program takes the tangents of the file or makes its own. A corner's
tangent points along growing u; a vertex has the mean of its corners' tangents, each first laid into the plane
of the vertex and weighted by the angle that the face has there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import components


def split_frames(mesh: Mesh) -> Mesh:
    """Split vertices whose faces have no common frame, so that each vertex can have one tangent.

    Faces share a frame at a vertex if they are joined there by edges and turn the same way in the atlas.

    Args:
        mesh: with `uv`.

    Returns:
        The same mesh if there are no such vertices; else with a vertex for each frame.
    """
    assert mesh.uv is not None
    faces = mesh.faces
    corner = faces.reshape(-1)  # [3F]
    frame = _frames(faces, _turn(faces, mesh.uv).sign())  # [3F]
    count = int(frame.max()) + 1 if len(frame) else 0
    if count == len(corner.unique()):
        return mesh
    vertex = corner.new_zeros(count).scatter(0, frame, corner)  # a frame's corners have one vertex
    # As before where nothing is split: in order of the vertices.
    order = vertex.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(count, device=order.device))
    kept = vertex[order]
    parts = {
        name: part[kept]
        for name in ("vertices", "normals", "colors", "uv", "tangents")
        if (part := getattr(mesh, name)) is not None
    }
    return mesh.replace(faces=rank[frame].view(-1, 3), **parts)


def _frames(faces: Tensor, turn: Tensor) -> Tensor:
    """The frame of each corner [3F] of faces [F, 3] that turn this way [F]: 1, -1, or 0 (either)."""
    start, end = (
        faces.reshape(-1),
        faces.roll(-1, 1).reshape(-1),
    )  # edges [3F], each named by its first corner
    keys = torch.minimum(start, end) * (int(faces.max()) + 1) + torch.maximum(start, end)
    keys, order = keys.sort(stable=True)
    pair = (keys[1:] == keys[:-1]).nonzero()[:, 0]
    one, other = order[pair], order[pair + 1]
    alike = turn[one // 3] * turn[other // 3] >= 0
    one, other = one[alike], other[alike]

    def following(edge: Tensor) -> Tensor:
        """The corner at an edge's end."""
        return edge - edge % 3 + (edge + 1) % 3

    turned = start[one] == end[other]  # as faces that agree on what is outside have it
    first = torch.where(turned, following(other), other)
    second = torch.where(turned, other, following(other))
    return components(torch.cat((one, following(one))), torch.cat((first, second)), len(start))


def _turn(faces: Tensor, uv: Tensor) -> Tensor:
    """Twice the signed area of each face in the atlas [F], with v as if it grew upward."""
    a, b, c = uv[faces].unbind(1)
    edge1, edge2 = b - a, c - a
    return edge1[:, 0] * edge2[:, 1] - edge2[:, 0] * edge1[:, 1]


def vertex_tangents(vertices: Tensor, faces: Tensor, uv: Tensor, normals: Tensor) -> Tensor:
    """Tangents for a normal map whose green points up in the image, by the convention of MikkTSpace.

    The tangent points along growing u; the bitangent w * cross(normal, tangent) along falling v (v grows
    downward in the image).

    Args:
        vertices: [V, 3], once for each frame (`split_frames`).
        faces: [F, 3].
        uv: [V, 2].
        normals: unit [V, 3].

    Returns:
        unit tangents and handedness +-1 [V, 4].
    """
    places, at = vertices[faces], uv[faces]  # [F, 3, 3], [F, 3, 2]
    edge1, edge2 = places[:, 1] - places[:, 0], places[:, 2] - places[:, 0]
    turn = _turn(faces, uv)
    dv1, dv2 = at[:, 1, 1] - at[:, 0, 1], at[:, 2, 1] - at[:, 0, 1]
    along_u = F.normalize((edge1 * dv2[:, None] - edge2 * dv1[:, None]) * turn.sign()[:, None], dim=1)
    tangent, side = torch.zeros_like(vertices), torch.zeros_like(vertices[:, 0])
    for corner in range(3):
        vertex = faces[:, corner]
        normal = normals[vertex]
        ahead, behind = (_laid(places[:, (corner + step) % 3] - places[:, corner], normal) for step in (1, 2))
        angle = (ahead * behind).sum(1, keepdim=True).clamp(-1, 1).acos()
        tangent = tangent.index_add(0, vertex, _laid(along_u, normal) * angle)
        side = side.index_add(0, vertex, turn.sign())
    # Where nothing is known (no area in the atlas), any direction along the surface will do.
    anything = _laid(F.one_hot(normals.abs().argmin(1), 3).to(normals.dtype), normals)
    known = tangent.norm(dim=1, keepdim=True) > 1e-12
    tangent = F.normalize(torch.where(known, tangent, anything), dim=1)
    return torch.cat((tangent, torch.where(side > 0, -1.0, 1.0).to(tangent.dtype)[:, None]), 1)


def _laid(vectors: Tensor, normals: Tensor) -> Tensor:
    """Vectors [N, 3] laid into the planes of unit normals [N, 3], of unit length."""
    return F.normalize(vectors - normals * (vectors * normals).sum(1, keepdim=True), dim=1)


def to_tangent_space(wanted: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
    """Normals as a normal map holds them, so that x T + y w cross(N, T) + z N gives `wanted` again.

    Args:
        wanted: unit normals in space [N, 3].
        normals: interpolated vertex normals [N, 3]; made unit here, as a viewer does.
        tangents: interpolated tangents with handedness [N, 4]; likewise.

    Returns:
        unit vectors [N, 3]; where `wanted` turns away from the surface, which no map can hold, laid flat.
    """
    n, t = F.normalize(normals, dim=1), F.normalize(tangents[:, :3], dim=1)
    b = torch.linalg.cross(n, t) * tangents[:, 3:].sign()
    y = (wanted * b).sum(1) / (b * b).sum(1).clamp_min(1e-12)
    # Interpolated, T and N need not be orthogonal any more: a 2 x 2 system gives their shares.
    tn, wt, wn = (t * n).sum(1), (wanted * t).sum(1), (wanted * n).sum(1)
    square = (1 - tn * tn).clamp_min(1e-6)
    local = torch.stack(((wt - tn * wn) / square, y, (wn - tn * wt) / square), 1)
    local[:, 2] = local[:, 2].clamp_min(0.05)
    return F.normalize(local, dim=1)
