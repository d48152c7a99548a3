"""Tangents along the texture, as glTF has them, and normals seen in their frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def vertex_tangents(vertices: Tensor, faces: Tensor, uv: Tensor, normals: Tensor) -> Tensor:
    """Tangents for a normal map whose green points up in the image, as glTF has it.

    The tangent points along growing u; the bitangent w * cross(normal, tangent) along falling v (v grows
    downward in the image). Summed over a vertex's faces by area, made orthogonal to the normal.

    Args:
        vertices: [V, 3], once a chart, so that no vertex lies between two directions.
        faces: [F, 3].
        uv: [V, 2].
        normals: unit [V, 3].

    Returns:
        unit tangents and handedness +-1 [V, 4].
    """
    a, b, c = vertices[faces].unbind(1)  # [F, 3]
    ua, ub, uc = uv[faces].unbind(1)  # [F, 2]
    edge1, edge2, duv1, duv2 = b - a, c - a, ub - ua, uc - ua
    turn = duv1[:, 0] * duv2[:, 1] - duv2[:, 0] * duv1[:, 1]  # twice the signed area in the atlas
    sign = turn.sign()[:, None]
    along_u = (edge1 * duv2[:, 1:] - edge2 * duv1[:, 1:]) * sign
    along_v = (edge2 * duv1[:, :1] - edge1 * duv2[:, :1]) * sign
    area = torch.linalg.cross(edge1, edge2).norm(dim=1, keepdim=True)
    tangent, bitangent = torch.zeros_like(vertices), torch.zeros_like(vertices)
    for corner in range(3):
        tangent = tangent.index_add(0, faces[:, corner], F.normalize(along_u, dim=1) * area)
        bitangent = bitangent.index_add(0, faces[:, corner], -F.normalize(along_v, dim=1) * area)
    tangent = tangent - normals * (tangent * normals).sum(1, keepdim=True)
    # Where nothing is known (no area in the atlas), any direction along the surface will do.
    smallest = F.one_hot(normals.abs().argmin(1), 3).to(normals.dtype)
    anything = smallest - normals * (smallest * normals).sum(1, keepdim=True)
    known = tangent.norm(dim=1, keepdim=True) > 1e-12
    tangent = F.normalize(torch.where(known, tangent, anything), dim=1)
    side = (torch.linalg.cross(normals, tangent) * bitangent).sum(1, keepdim=True)
    return torch.cat((tangent, torch.where(side < 0, -1.0, 1.0).to(tangent.dtype)), 1)


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
