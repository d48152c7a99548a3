"""Mesh cleaning: weld vertices, remove degenerate faces and floaters, compute smooth normals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh, face_normals, vertex_normals

FLOATER_FRACTION = 0.02


class Welded(NamedTuple):
    """The result of `weld`: a map from V vertices to N distinct positions.

    Attributes:
        index: the welded vertex of each vertex, int64 [V], in 0 .. N - 1, in order of first appearance.
        first: the first vertex of each welded vertex, int64 [N].
    """

    index: Tensor
    first: Tensor


def weld(vertices: Tensor) -> Welded:
    """Merge vertices [V, 3] whose positions are exactly equal, such as those on UV seams."""
    positions = np.ascontiguousarray(vertices.detach().cpu().numpy()) + 0.0  # no negative zeros
    keys = positions.view(np.dtype((np.void, positions.dtype.itemsize * 3))).reshape(-1)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)  # from byte order to order of appearance
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    device = vertices.device
    return Welded(torch.from_numpy(rank[index]).to(device), torch.from_numpy(first[order]).to(device))


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return area-weighted unit vertex normals [V, 3], equal on both sides of a UV seam."""
    welded = weld(vertices)
    return vertex_normals(vertices[welded.first], welded.index[faces])[welded.index]


def submesh(mesh: Mesh, faces: Tensor) -> Mesh:
    """Return a mesh of the given faces [F, 3] with only the vertices that they use, in the same order."""
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.vertices.device)
    used[faces.reshape(-1)] = True
    index = used.cumsum(0) - 1
    parts = {}
    for name in ("vertices", "normals", "colors", "uv", "tangents"):
        part = getattr(mesh, name)
        parts[name] = None if part is None else part[used]
    return mesh.replace(faces=index[faces], **parts)


def tidy(mesh: Mesh) -> Mesh:
    """Remove degenerate faces and vertices that no face uses; a closed surface stays closed.

    Edges shorter than 1e-6 of the bounding box's diagonal are collapsed (marching cubes creates such edges
    where the field is zero at a grid node). Faces that lose a corner are removed, and so are pairs of
    opposite faces on the same vertices. A face with three distinct but collinear corners is kept: removing
    it would leave a hole.
    """
    faces = mesh.faces
    if len(faces) == 0:
        return submesh(mesh, faces)
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    tiny = 1e-6 * (mesh.bounds[1] - mesh.bounds[0]).norm()
    short = (mesh.vertices[starts] - mesh.vertices[ends]).norm(dim=1) <= tiny
    if short.any():
        label = components(starts[short], ends[short], len(mesh.vertices))
        # The first vertex of each group represents the group.
        first = torch.full_like(label, len(label))
        order = torch.arange(len(label), device=label.device)
        first = first.scatter_reduce(0, label, order, "amin")
        faces = first[label][faces]
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    return submesh(mesh, remove_duplicate_faces(faces) if short.any() else faces)


def remove_duplicate_faces(faces: Tensor) -> Tensor:
    """Keep one of the faces [F, 3] on the same three vertices, or none if they cancel in opposite pairs."""
    shift = faces.argmin(1, keepdim=True)
    rolled = faces.gather(1, (shift + torch.arange(3, device=faces.device)) % 3)  # smallest corner first
    forward = rolled[:, 1] < rolled[:, 2]
    a, b, c = rolled.sort(1).values.unbind(1)
    # Numbers in place of rows: `unique` of rows takes several times as long.
    count = int(faces.max()) + 1 if len(faces) else 0
    pair = (b * count + c).unique(return_inverse=True)[1]
    keys, group = (a * len(faces) + pair).unique(return_inverse=True)
    sign = torch.where(forward, 1, -1)
    total = torch.zeros(len(keys), dtype=torch.int64, device=faces.device).index_add(0, group, sign)
    candidate = sign == total.sign()[group]
    order = torch.arange(len(faces), device=faces.device)
    first = torch.full_like(total, len(faces))
    first = first.scatter_reduce(0, group[candidate], order[candidate], "amin")
    return faces[candidate & (first[group] == order)]


@dataclass(frozen=True)
class Dropped:
    """What `drop_floaters` removed.

    Attributes:
        components: number of connected components.
        faces: number of their faces.
        area: their fraction of the total surface area, 0 to 1.
    """

    components: int = 0
    faces: int = 0
    area: float = 0.0


def drop_floaters(mesh: Mesh, fraction: float = FLOATER_FRACTION) -> tuple[Mesh, Dropped]:
    """Remove connected components whose area is below a fraction of the largest component's area.

    The criterion is area because it depends neither on the mesh resolution (as the number of faces does) nor
    vanishes for thin sheets and wires (as volume does). Thin parts that are connected to a large component
    are kept.

    Args:
        mesh: any mesh; vertices at the same position count as connected.
        fraction: threshold relative to the largest component's area, 0 (keep everything) to 1.

    Returns:
        The mesh without floaters (the same object if there are none) and what was removed.

    Raises:
        ValueError: the fraction is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], not {fraction}")
    if len(mesh.faces) == 0:
        return mesh, Dropped()
    welded = weld(mesh.vertices)
    corners = welded.index[mesh.faces]  # [F, 3]
    starts, ends = corners[:, :2].reshape(-1), corners[:, 1:].reshape(-1)
    label = components(starts, ends, len(welded.first))[corners[:, 0]]  # [F]
    area = face_normals(mesh.vertices.detach().double(), mesh.faces).norm(dim=1)
    total = torch.zeros(int(label.max()) + 1, dtype=area.dtype, device=area.device).index_add(0, label, area)
    present = torch.zeros_like(total, dtype=torch.bool)
    present[label] = True  # components with a face, unlike isolated vertices
    floater = present & (total < fraction * total.max())
    if not floater.any():
        return mesh, Dropped()
    gone = floater[label]
    share = float(total[floater].sum() / total.sum())
    return submesh(mesh, mesh.faces[~gone]), Dropped(int(floater.sum()), int(gone.sum()), share)


def components(starts: Tensor, ends: Tensor, count: int) -> Tensor:
    """Label connected components of a graph.

    Args:
        starts, ends: the vertices that each edge connects, int64 [E].
        count: number of vertices.

    Returns:
        The component of each vertex, int64 [count].
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(starts), dtype=np.int8)
    graph = coo_matrix((ones, (starts.cpu().numpy(), ends.cpu().numpy())), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    return torch.from_numpy(label).long().to(starts.device)
