"""Watertight meshes: make a closed surface two-manifold by cutting it where solids touch.

The method follows Gueziec et al., "Converting sets of polygons to manifold surfaces by cutting and
stitching" (1998). A marching cubes surface is closed, and each of its edges has two faces. Simplification
keeps it closed, but where sheets nearly touch it may merge two edges into one with four faces, or two
vertices into one. The solids then touch along an edge or in a point, which programs interpret differently.
Here each solid gets its own edge or vertex, moved slightly inward.

The library manifold3d splits such edges as well (the tests check the result with it), but leaves the copies
at the same position: in an STL, which stores positions only, they would be merged again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.check import check, flat_faces
from triplaneturbo.mesh.mesh import Mesh, face_normals, vertex_normals
from triplaneturbo.mesh.processing.clean import (
    components,
    remove_duplicate_faces,
    smooth_normals,
    submesh,
    weld,
)

_SEPARATION = 0.02  # distance that copies move inward, relative to the shortest edge around them,
_MIN_SEPARATION = 1e-5  # but at least this fraction of the mesh's diagonal: files hold 7 digits
_ROUNDS = 4


def watertight(mesh: Mesh) -> Mesh:
    """Return a printable solid: it passes `check`, and the faces around every vertex form a single fan.

    Vertices at the same position are welded. Faces and positions that are valid do not change. Vertex
    attributes are dropped, except normals, which are recomputed.

    Args:
        mesh: a closed surface with consistently oriented faces.

    Raises:
        UserError: the surface has holes, or faces of inconsistent orientation.
        ValueError: the mesh has texture coordinates.
    """
    if mesh.uv is not None:
        raise ValueError("mesh has texture coordinates; make it watertight before unwrapping")
    solid = _split_nonmanifold(mesh)
    report = check(solid)
    if not report.printable:
        raise UserError(
            f"The surface cannot be made watertight ({report.sentence.rstrip('.')}); try another seed or"
            " resolution, or turn watertight off."
        )
    normals = None if mesh.normals is None else smooth_normals(solid.vertices, solid.faces)
    return solid.replace(normals=normals)


def _split_nonmanifold(mesh: Mesh) -> Mesh:
    """Split all non-manifold edges and vertices, in several rounds: a cut can expose further ones."""
    device = mesh.vertices.device
    vertices, faces = mesh.vertices.detach().cpu().float(), mesh.faces.cpu()
    for _ in range(_ROUNDS):
        welded = weld(vertices)
        vertices, faces = vertices[welded.first], welded.index[faces]
        a, b, c = faces.unbind(1)
        faces = remove_duplicate_faces(faces[(a != b) & (b != c) & (c != a)])
        if len(faces) == 0:
            break
        before, start = vertices, faces
        vertices, faces = _split_edges(vertices, faces)
        vertices, faces = _split_vertices(vertices, faces)
        vertices = _lift_degenerate_faces(vertices, faces)
        if vertices is before and faces is start:
            break
    return submesh(Mesh(vertices.to(device), faces.to(device)), faces.to(device))


def _split_edges(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Split each edge of more than two faces by giving every solid that shares it its own midpoint.

    Two copies of the edge are not enough: if the solids are connected around both of its ends, the copies
    would have the same ends.
    """
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F] each
    keys = torch.minimum(starts, ends) * len(vertices) + torch.maximum(starts, ends)
    keys, count = keys.unique(return_counts=True)
    shared = keys[count > 2].tolist()
    if not shared:
        return vertices, faces
    positions = vertices.double().numpy()
    separation = _separations(vertices, faces).numpy()
    table = faces.numpy().copy()
    for key in shared:
        low, high = divmod(key, len(vertices))
        around = np.nonzero((table == low).any(1) & (table == high).any(1))[0]
        for pair in _solid_face_pairs(positions, table[around], low, high):
            one, other = (_unit(_normal(positions[table[face]])) for face in around[list(pair)])
            inward = -_unit(one + other)
            middle = (positions[low] + positions[high]) / 2 + min(separation[low], separation[high]) * inward
            new = len(positions)
            positions = np.concatenate((positions, middle[None]))
            for face in around[list(pair)]:
                halves = np.stack((table[face], table[face]))
                halves[0][halves[0] == high] = new
                halves[1][halves[1] == low] = new
                table[face] = halves[0]
                table = np.concatenate((table, halves[1:]))
    added = torch.from_numpy(positions[len(vertices) :]).to(vertices)
    return torch.cat((vertices, added)), torch.from_numpy(table)


def _solid_face_pairs(positions: np.ndarray, faces: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
    """Pair the faces [N, 3] around the edge from `low` to `high` that have solid between them.

    Seen along the edge, a face whose half-edge runs against it has the solid on its counter-clockwise side,
    one whose half-edge runs with it on its clockwise side: they match like brackets. A face without a partner
    (at a hole) is left out.
    """
    axis = _unit(positions[high] - positions[low])
    aside = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    opposite = faces.sum(1) - low - high
    reach = positions[opposite] - positions[low]
    angle = np.arctan2(reach @ np.cross(axis, aside), reach @ aside)
    position = (faces == low).argmax(1)
    opens = faces[np.arange(len(faces)), (position + 1) % 3] != high  # [N]
    order = np.argsort(angle, kind="stable").tolist()
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []
    paired: set[int] = set()
    for face in order * 2:  # twice around: a bracket may be open where the angles wrap around
        if face in paired:
            continue
        if opens[face]:
            if face not in waiting:
                waiting.append(face)
        elif waiting:
            pairs.append((waiting.pop(), face))
            paired.update(pairs[-1])
    return pairs


def _split_vertices(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Give each fan of faces around a vertex its own copy of the vertex."""
    fans = corner_fans(faces)
    slots = faces.reshape(-1)  # [3F]
    # Copies of one vertex all move inward, along the mean normal of their fan.
    number = fans.unique(return_inverse=True)[1]
    total = int(number.max()) + 1
    owner = torch.zeros(total, dtype=torch.int64).index_put((number,), slots)
    shared = torch.bincount(owner, minlength=len(vertices))[owner] > 1  # [fans]
    if not shared.any():
        return vertices, faces
    normals = face_normals(vertices.double(), faces).repeat_interleave(3, 0)
    mean = torch.zeros(total, 3, dtype=torch.float64).index_add(0, number, normals)
    inward = -torch.nn.functional.normalize(mean, dim=1)
    separation = _separations(vertices, faces)[owner]
    moved = vertices[owner].double() + inward * separation[:, None] * shared[:, None]
    return moved.to(vertices), number.reshape(-1, 3)


def corner_fans(faces: Tensor) -> Tensor:
    """Label the corners of the faces [F, 3] by fan: edges of two faces connect corners; int64 [3F]."""
    count = 3 * len(faces)
    corner = torch.arange(count).reshape(-1, 3)
    starts, ends = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)  # [3F]: edges by their first corner
    begin, end = corner.reshape(-1), corner.roll(-1, 1).reshape(-1)
    size = int(faces.max()) + 1
    _, group, number = (torch.minimum(starts, ends) * size + torch.maximum(starts, ends)).unique(
        return_inverse=True, return_counts=True
    )
    order = group.argsort(stable=True)
    order = order[(number == 2)[group[order]]].reshape(-1, 2)  # the two sides of each edge
    one, other = order.unbind(1)
    same = starts[one] == starts[other]  # faces of opposite orientation
    first, second = torch.where(same, begin[other], end[other]), torch.where(same, end[other], begin[other])
    return components(torch.cat((begin[one], end[one])), torch.cat((first, second)), count)


def _lift_degenerate_faces(vertices: Tensor, faces: Tensor) -> Tensor:
    """Move the middle one of three collinear corners inward, so that the face has an area."""
    flat = faces[flat_faces(vertices.double(), faces)]
    if len(flat) == 0:
        return vertices
    corners = vertices[flat].double()
    opposite = (corners.roll(-1, 1) - corners.roll(-2, 1)).norm(dim=-1).argmax(1, keepdim=True)
    middle = flat.gather(1, opposite).reshape(-1).unique()
    inward = -vertex_normals(vertices.double(), faces)[middle]
    moved = vertices.clone()
    distance = _separations(vertices, faces).clamp_max(_MIN_SEPARATION)[middle, None]
    moved[middle] += (inward * distance).to(vertices)
    return moved


def _separations(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the distance that a copy of each vertex moves, float64 [V]."""
    corners = vertices.double()[faces]
    lengths = (corners - corners.roll(-1, 1)).norm(dim=-1)  # [F, 3]
    shortest = torch.full((len(vertices),), torch.inf, dtype=torch.float64)
    for corner in range(3):
        shortest = shortest.scatter_reduce(0, faces[:, corner], lengths.amin(1), "amin")
    diagonal = (vertices.amax(0) - vertices.amin(0)).norm().double()
    return torch.maximum(_SEPARATION * shortest, _MIN_SEPARATION * diagonal)


def _normal(corners: np.ndarray) -> np.ndarray:
    return np.cross(corners[1] - corners[0], corners[2] - corners[0])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-300)
