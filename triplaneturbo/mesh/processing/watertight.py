"""A closed surface made two-manifold, by cutting it where solids touch (after Gueziec et al., 1998).

The surface of marching cubes is closed, and every edge of it has two faces. Simplification keeps it closed,
but where sheets nearly touch it may join two edges into one with four faces, or two vertices into one: solids
that touch along an edge or in a point, which programs take apart each in its own way. Here each of the solids
gets an edge or a vertex of its own, a hair inside of where they touched.

The library manifold3d takes such edges apart as well (the tests ask it for its opinion of what is made here),
but leaves the copies at the same place: in an STL, which has nothing but places, they are joined again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.check import check, flat_faces
from triplaneturbo.mesh.mesh import Mesh, face_normals, vertex_normals
from triplaneturbo.mesh.processing.clean import components, smooth_normals, take, weld, without_folds

_HAIR = 0.02  # how far copies move inward, in lengths of the shortest edge around them,
_LEAST = 1e-5  # but at least so much of the mesh's diagonal: files hold 7 digits
_ROUNDS = 4


def watertight(mesh: Mesh) -> Mesh:
    """A solid for printing, one that passes `check`; and the faces around every vertex are a single fan.

    Vertices at the same place become one. Where nothing is amiss, faces and places stay as they are.
    Attributes of the vertices are dropped, but for normals, which are computed anew.

    Args:
        mesh: a closed surface whose faces agree on what is outside.

    Raises:
        UserError: there are holes, or faces that disagree on what is outside.
        ValueError: a mesh with texture coordinates.
    """
    if mesh.uv is not None:
        raise ValueError("make a mesh watertight before unwrapping it")
    whole = _taken_apart(mesh)
    found = check(whole)
    if not found.printable:
        raise UserError(
            f"The surface cannot be made watertight ({found.sentence.rstrip('.')}); try another seed or"
            " resolution, or leave watertight off."
        )
    normals = None if mesh.normals is None else smooth_normals(whole.vertices, whole.faces)
    return whole.replace(normals=normals)


def _taken_apart(mesh: Mesh) -> Mesh:
    """The mesh with every touching edge and vertex cut; a second round finds what the first has uncovered."""
    device = mesh.vertices.device
    vertices, faces = mesh.vertices.detach().cpu().float(), mesh.faces.cpu()
    for _ in range(_ROUNDS):
        joined = weld(vertices)
        vertices, faces = vertices[joined.first], joined.index[faces]
        a, b, c = faces.unbind(1)
        faces = without_folds(faces[(a != b) & (b != c) & (c != a)])
        if len(faces) == 0:
            break
        before, start = vertices, faces
        vertices, faces = _cut_edges(vertices, faces)
        vertices, faces = _cut_vertices(vertices, faces)
        vertices = _raise_flat(vertices, faces)
        if vertices is before and faces is start:
            break
    return take(Mesh(vertices.to(device), faces.to(device)), faces.to(device))


def _cut_edges(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Give each of the solids that share an edge a midpoint of its own on it; then no edge is shared.

    Two copies of the edge alone would not do: where the solids hang together around both of its ends, the
    copies would have the same ends.
    """
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    keys = torch.minimum(starts, ends) * len(vertices) + torch.maximum(starts, ends)
    keys, count = keys.unique(return_counts=True)
    shared = keys[count > 2].tolist()
    if not shared:
        return vertices, faces
    places = vertices.double().numpy()
    hair = _hairs(vertices, faces).numpy()
    table = faces.numpy().copy()
    for key in shared:
        low, high = divmod(key, len(vertices))
        around = np.nonzero((table == low).any(1) & (table == high).any(1))[0]
        for pair in _wedges(places, table[around], low, high):
            one, other = (_unit(_normal(places[table[face]])) for face in around[list(pair)])
            inward = -_unit(one + other)
            middle = (places[low] + places[high]) / 2 + min(hair[low], hair[high]) * inward
            new = len(places)
            places = np.concatenate((places, middle[None]))
            for face in around[list(pair)]:
                halves = np.stack((table[face], table[face]))
                halves[0][halves[0] == high] = new
                halves[1][halves[1] == low] = new
                table[face] = halves[0]
                table = np.concatenate((table, halves[1:]))
    added = torch.from_numpy(places[len(vertices) :]).to(vertices)
    return torch.cat((vertices, added)), torch.from_numpy(table)


def _wedges(places: np.ndarray, faces: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
    """Pairs of the faces [N, 3] around the edge from `low` to `high` that have solid between them.

    Seen along the edge, a face that runs against it has the solid counter-clockwise of it, one that runs with
    it has it clockwise: they pair like brackets. A face without a partner (there is a hole) is left out.
    """
    axis = _unit(places[high] - places[low])
    aside = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    opposite = faces.sum(1) - low - high
    reach = places[opposite] - places[low]
    angle = np.arctan2(reach @ np.cross(axis, aside), reach @ aside)
    position = (faces == low).argmax(1)
    opens = faces[np.arange(len(faces)), (position + 1) % 3] != high  # [N]
    order = np.argsort(angle, kind="stable").tolist()
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []
    paired: set[int] = set()
    for face in order * 2:  # twice around: a bracket may be open where the angles begin again
        if face in paired:
            continue
        if opens[face]:
            if face not in waiting:
                waiting.append(face)
        elif waiting:
            pairs.append((waiting.pop(), face))
            paired.update(pairs[-1])
    return pairs


def _cut_vertices(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Give each fan of faces around a vertex a copy of its own."""
    fans = corner_fans(faces)
    slots = faces.reshape(-1)  # [3F]
    # The first fan of a vertex keeps it; and all that are there twice move.
    number = fans.unique(return_inverse=True)[1]
    total = int(number.max()) + 1
    owner = torch.zeros(total, dtype=torch.int64).index_put((number,), slots)
    shared = torch.bincount(owner, minlength=len(vertices))[owner] > 1  # [fans]
    if not shared.any():
        return vertices, faces
    normals = face_normals(vertices.double(), faces).repeat_interleave(3, 0)
    mean = torch.zeros(total, 3, dtype=torch.float64).index_add(0, number, normals)
    inward = -torch.nn.functional.normalize(mean, dim=1)
    hair = _hairs(vertices, faces)[owner]
    moved = vertices[owner].double() + inward * hair[:, None] * shared[:, None]
    return moved.to(vertices), number.reshape(-1, 3)


def corner_fans(faces: Tensor) -> Tensor:
    """A label for each corner of the faces [F, 3], the same where an edge of two faces joins them: [3F]."""
    count = 3 * len(faces)
    corner = torch.arange(count).reshape(-1, 3)
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F]: the edge from each corner on
    begin, end = corner.reshape(-1), corner.roll(-1, 1).reshape(-1)
    size = int(faces.max()) + 1
    _, group, number = (torch.minimum(starts, ends) * size + torch.maximum(starts, ends)).unique(
        return_inverse=True, return_counts=True
    )
    order = group.argsort(stable=True)
    order = order[(number == 2)[group[order]]].reshape(-1, 2)  # the two sides of each edge
    one, other = order.unbind(1)
    same = starts[one] == starts[other]  # faces that disagree on what is outside
    first, second = torch.where(same, begin[other], end[other]), torch.where(same, end[other], begin[other])
    return components(torch.cat((begin[one], end[one])), torch.cat((first, second)), count)


def _raise_flat(vertices: Tensor, faces: Tensor) -> Tensor:
    """Move the middle one of three corners on a line inward, so that the face has an area."""
    flat = faces[flat_faces(vertices.double(), faces)]
    if len(flat) == 0:
        return vertices
    corners = vertices[flat].double()
    opposite = (corners.roll(-1, 1) - corners.roll(-2, 1)).norm(dim=-1).argmax(1, keepdim=True)
    middle = flat.gather(1, opposite).reshape(-1).unique()
    inward = -vertex_normals(vertices.double(), faces)[middle]
    moved = vertices.clone()
    moved[middle] += (inward * _hairs(vertices, faces).clamp_max(_LEAST)[middle, None]).to(vertices)
    return moved


def _hairs(vertices: Tensor, faces: Tensor) -> Tensor:
    """How far a copy of each vertex may move [V], float64."""
    corners = vertices.double()[faces]
    lengths = (corners - corners.roll(-1, 1)).norm(dim=-1)  # [F, 3]
    shortest = torch.full((len(vertices),), torch.inf, dtype=torch.float64)
    for corner in range(3):
        shortest = shortest.scatter_reduce(0, faces[:, corner], lengths.amin(1), "amin")
    diagonal = (vertices.amax(0) - vertices.amin(0)).norm().double()
    return torch.maximum(_HAIR * shortest, _LEAST * diagonal)


def _normal(corners: np.ndarray) -> np.ndarray:
    return np.cross(corners[1] - corners[0], corners[2] - corners[0])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-300)
