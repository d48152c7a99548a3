"""PLY and STL: binary files of a closed surface, without texture coordinates."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.common import checked, to_file_axes
from triplaneturbo.mesh.io.registry import WriteOptions
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import weld
from triplaneturbo.render.colors import sample


def to_ply(mesh: Mesh, placement: Placement = AS_MODELLED) -> bytes:
    """The mesh as a binary PLY with normals and, where it has colours or a texture, vertex colours.

    Colours are sRGB bytes; without vertex colours the texture is read at each vertex. Vertices on texture
    seams are joined again.

    Args:
        mesh: in model space.
        placement: size, unit (metres by default), up axis and origin.

    Raises:
        UserError: an empty mesh, positions that are not finite, an impossible placement.
    """
    mesh = checked(mesh, placement, "ply")
    joined = weld(mesh.vertices)
    faces = _proper(joined.index[mesh.faces])
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    vectors = (to_file_axes(part, placement.up) for part in (mesh.vertices, mesh.normals))
    values = torch.cat(tuple(vectors), dim=1)[joined.first]  # [N, 6]
    colors = _colors(mesh)
    if colors is not None:
        columns += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
        values = torch.cat((values, colors[joined.first]), dim=1)  # [N, 9]
    table = np.empty(len(values), dtype=columns)
    for column, (name, _) in enumerate(columns):
        table[name] = values[:, column].numpy()
    cells = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    cells["count"], cells["corners"] = 3, faces.numpy()
    kinds = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment TriplaneTurbo",
        f"element vertex {len(table)}",
        *(f"property {kinds[kind]} {name}" for name, kind in columns),
        f"element face {len(cells)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode() + table.tobytes() + cells.tobytes()


def to_stl(mesh: Mesh, placement: Placement = AS_MODELLED) -> bytes:
    """The mesh as a binary STL: bare triangles, their corners equal to the last bit where they meet.

    Args:
        mesh: in model space.
        placement: size, unit (millimetres by default, as slicers read an STL), up axis and origin.

    Raises:
        UserError: an empty mesh, positions that are not finite, an impossible placement.
    """
    mesh = checked(mesh, placement, "stl")
    joined = weld(mesh.vertices)
    vertices = to_file_axes(mesh.vertices[joined.first], placement.up)
    faces = _proper(joined.index[mesh.faces])
    table = np.zeros(len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    table["normal"] = torch.nn.functional.normalize(face_normals(vertices, faces), dim=1).numpy()
    table["corners"] = vertices[faces].numpy()
    return (
        b"TriplaneTurbo binary STL".ljust(80)
        + np.uint32(len(faces)).astype("<u4").tobytes()
        + table.tobytes()
    )


def _proper(faces: Tensor) -> Tensor:
    """The faces [F, 3] whose corners are three different vertices."""
    a, b, c = faces.unbind(1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    if len(faces) == 0:
        raise UserError("The mesh has no face with an area, so there is nothing to save; try another seed.")
    return faces


def _colors(mesh: Mesh) -> Tensor | None:
    """sRGB colours of the vertices, 0 to 255 in whole numbers [V, 3], or None."""
    if mesh.colors is not None:
        colors = mesh.colors
    elif mesh.texture is not None and mesh.uv is not None:
        colors = sample(torch.from_numpy(mesh.texture.astype(np.float32)) / 255, mesh.uv)
    else:
        return None
    return (colors.nan_to_num().clamp(0, 1) * 255).round()


def write_ply(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a PLY for the registry."""
    return to_ply(mesh, options.placement)


def write_stl(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return an STL for the registry."""
    return to_stl(mesh, options.placement)
