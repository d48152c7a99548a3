"""A surface made tidy: equal vertices joined, degenerate faces and floaters dropped, normals smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh, face_normals, vertex_normals

FLOATER_FRACTION = 0.01


class Welded(NamedTuple):
    """Vertices at the same place as one.

    Attributes:
        index: the joined vertex of each vertex, int64 [V], in 0 .. N - 1, in order of first appearance.
        first: the first of the vertices that were joined into each, int64 [N].
    """

    index: Tensor
    first: Tensor


def weld(vertices: Tensor) -> Welded:
    """Join vertices [V, 3] whose positions are exactly equal (those on the seams of an atlas are)."""
    positions = np.ascontiguousarray(vertices.detach().cpu().numpy()) + 0.0  # no negative zeros
    keys = positions.view(np.dtype((np.void, positions.dtype.itemsize * 3))).reshape(-1)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)  # from the order of the bytes to that of appearance
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    device = vertices.device
    return Welded(torch.from_numpy(rank[index]).to(device), torch.from_numpy(first[order]).to(device))


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Smooth unit normals [V, 3], the same on both sides of a texture seam."""
    joined = weld(vertices)
    return vertex_normals(vertices[joined.first], joined.index[faces])[joined.index]


def take(mesh: Mesh, faces: Tensor) -> Mesh:
    """A mesh of those faces [F, 3] with only the vertices that they use, in their order."""
    used = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.vertices.device)
    used[faces.reshape(-1)] = True
    index = used.cumsum(0) - 1
    parts = {}
    for name in ("vertices", "normals", "colors", "uv", "tangents"):
        part = getattr(mesh, name)
        parts[name] = None if part is None else part[used]
    return mesh.replace(faces=index[faces], **parts)


def tidy(mesh: Mesh) -> Mesh:
    """Drop degenerate faces and vertices that no face uses; a closed surface stays closed.

    Edges shorter than a millionth of the mesh's diagonal are contracted (marching cubes makes such edges
    where the field is zero at a grid node), faces that thereby lose a corner go, and so do pairs that then
    lie back to back. A face whose three distinct corners lie on one line stays: without it there is a hole.
    """
    faces = mesh.faces
    if len(faces) == 0:
        return take(mesh, faces)
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    tiny = 1e-6 * (mesh.bounds[1] - mesh.bounds[0]).norm()
    short = (mesh.vertices[starts] - mesh.vertices[ends]).norm(dim=1) <= tiny
    if short.any():
        label = components(starts[short], ends[short], len(mesh.vertices))
        # The first vertex of each group stands for the group.
        first = torch.full_like(label, len(label))
        order = torch.arange(len(label), device=label.device)
        first = first.scatter_reduce(0, label, order, "amin")
        faces = first[label][faces]
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    return take(mesh, without_folds(faces) if short.any() else faces)


def without_folds(faces: Tensor) -> Tensor:
    """Of the faces [F, 3] on the same three vertices: the odd one out, or none if they cancel in pairs."""
    turn = faces.argmin(1, keepdim=True)
    rolled = faces.gather(1, (turn + torch.arange(3, device=faces.device)) % 3)  # smallest corner first
    forward = rolled[:, 1] < rolled[:, 2]
    keys, group = rolled.sort(1).values.unique(dim=0, return_inverse=True)
    sign = torch.where(forward, 1, -1)
    total = torch.zeros(len(keys), dtype=torch.int64, device=faces.device).index_add(0, group, sign)
    candidate = sign == total.sign()[group]
    order = torch.arange(len(faces), device=faces.device)
    first = torch.full_like(total, len(faces))
    first = first.scatter_reduce(0, group[candidate], order[candidate], "amin")
    return faces[candidate & (first[group] == order)]


@dataclass(frozen=True)
class Dropped:
    """What `drop_floaters` took away.

    Attributes:
        components: how many connected pieces.
        faces: how many faces they had.
        area: their share of the whole surface's area, 0 to 1.
    """

    components: int = 0
    faces: int = 0
    area: float = 0.0


def drop_floaters(mesh: Mesh, fraction: float = FLOATER_FRACTION) -> tuple[Mesh, Dropped]:
    """Drop connected pieces whose area is under a fraction of the largest piece's area.

    Area, because it neither depends on how finely a piece is meshed (as the number of faces does) nor
    vanishes for thin sheets and wires (as volume does). What hangs together with something large stays,
    however thin.

    Args:
        mesh: any; vertices at the same place count as connected.
        fraction: of the largest piece's area, 0 (keep everything) to 1.

    Returns:
        The mesh without them (the same object if nothing was dropped) and what was dropped.

    Raises:
        ValueError: a fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be within [0, 1], not {fraction}")
    if len(mesh.faces) == 0:
        return mesh, Dropped()
    joined = weld(mesh.vertices)
    corners = joined.index[mesh.faces]  # [F, 3]
    starts, ends = corners[:, :2].reshape(-1), corners[:, 1:].reshape(-1)
    label = components(starts, ends, len(joined.first))[corners[:, 0]]  # [F]
    area = face_normals(mesh.vertices.detach().double(), mesh.faces).norm(dim=1)
    total = torch.zeros(int(label.max()) + 1, dtype=area.dtype, device=area.device).index_add(0, label, area)
    present = torch.zeros_like(total, dtype=torch.bool)
    present[label] = True  # pieces that have a face, unlike lone vertices
    floater = present & (total < fraction * total.max())
    if not floater.any():
        return mesh, Dropped()
    gone = floater[label]
    share = float(total[floater].sum() / total.sum())
    return take(mesh, mesh.faces[~gone]), Dropped(int(floater.sum()), int(gone.sum()), share)


def components(starts: Tensor, ends: Tensor, count: int) -> Tensor:
    """The connected component of each of `count` vertices, given edges [E] and [E]; int64 [count]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(starts), dtype=np.int8)
    graph = coo_matrix((ones, (starts.cpu().numpy(), ends.cpu().numpy())), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    return torch.from_numpy(label).long().to(starts.device)
