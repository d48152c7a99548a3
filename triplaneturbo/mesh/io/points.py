"""PLY and STL writers: binary files without texture coordinates."""

from __future__ import annotations

import numpy as np
import torch

from triplaneturbo.mesh.io.common import checked, nondegenerate, to_file_axes, vertex_colors
from triplaneturbo.mesh.io.generation_metadata import KEY, GenerationMetadata
from triplaneturbo.mesh.io.registry import WriteOptions
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import weld


def to_ply(
    mesh: Mesh, placement: Placement = AS_MODELLED, metadata: GenerationMetadata | None = None
) -> bytes:
    """Encode a mesh as a binary PLY with normals and, if it has colours or a texture, vertex colours.

    Colours are sRGB bytes; without vertex colours the texture is sampled at each vertex. Vertices on UV seams
    are welded.

    Args:
        mesh: in model space.
        placement: size, unit (metres by default), up axis and origin.
        metadata: how the mesh was generated, written as a comment; None: not written.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the placement is invalid.
    """
    mesh = checked(mesh, placement, "ply")
    welded = weld(mesh.vertices)
    faces = welded.index[mesh.faces]
    faces = faces[nondegenerate(faces)]
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4")]
    vectors = (to_file_axes(part, placement.up) for part in (mesh.vertices, mesh.normals))
    values = torch.cat(tuple(vectors), dim=1)[welded.first]  # [N, 6]
    colors = vertex_colors(mesh)
    if colors is not None:
        columns += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
        values = torch.cat((values, colors[welded.first]), dim=1)  # [N, 9]
    vertex_table = np.empty(len(values), dtype=columns)
    for column, (name, _) in enumerate(columns):
        vertex_table[name] = values[:, column].numpy()
    face_table = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    face_table["count"], face_table["corners"] = 3, faces.numpy()
    kinds = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment TriplaneTurbo",
        *([] if metadata is None else [f"comment {KEY} {metadata.as_text()}"]),
        f"element vertex {len(vertex_table)}",
        *(f"property {kinds[kind]} {name}" for name, kind in columns),
        f"element face {len(face_table)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode() + vertex_table.tobytes() + face_table.tobytes()


def to_stl(mesh: Mesh, placement: Placement = AS_MODELLED) -> bytes:
    """Encode a mesh as a binary STL; adjacent triangles share bit-identical corners.

    Args:
        mesh: in model space.
        placement: size, unit (millimetres by default, as slicers expect), up axis and origin.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the placement is invalid.
    """
    mesh = checked(mesh, placement, "stl")
    welded = weld(mesh.vertices)
    vertices = to_file_axes(mesh.vertices[welded.first], placement.up)
    faces = welded.index[mesh.faces]
    faces = faces[nondegenerate(faces)]
    records = np.zeros(
        len(faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")]
    )
    records["normal"] = torch.nn.functional.normalize(face_normals(vertices, faces), dim=1).numpy()
    records["corners"] = vertices[faces].numpy()
    return (
        b"TriplaneTurbo binary STL".ljust(80)
        + np.uint32(len(faces)).astype("<u4").tobytes()
        + records.tobytes()
    )


def write_ply(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a PLY for the registry."""
    return to_ply(mesh, options.placement, options.metadata)


def write_stl(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return an STL for the registry."""
    return to_stl(mesh, options.placement)
