"""From a mesh to a file: GLB, OBJ (a zip with its material and texture), PLY, STL, USDZ.

All have y up and the front toward +z, an STL is in millimetres and the others in metres, unless a Placement
says otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.common import safe_name
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.mesh.io.obj import to_obj_zip
from triplaneturbo.mesh.io.points import to_ply, to_stl
from triplaneturbo.mesh.io.usdz import to_usdz
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.utils.atomic_files import write_whole

SUFFIXES = {"glb": ".glb", "obj": ".zip", "ply": ".ply", "stl": ".stl", "usdz": ".usdz"}
"""The formats by name, and what their files end in."""

__all__ = [
    "AS_MODELLED",
    "SUFFIXES",
    "Placement",
    "encode",
    "format_of",
    "safe_name",
    "save",
    "to_glb",
    "to_obj_zip",
    "to_ply",
    "to_stl",
    "to_usdz",
]


def encode(
    mesh: Mesh, format: str, name: str = "mesh", placement: Placement = AS_MODELLED, image: str = "png"
) -> bytes:
    """The mesh as the bytes of a file; the same mesh gives the same bytes.

    Args:
        mesh: in model space.
        format: "glb", "obj" (a zip), "ply", "stl" or "usdz".
        name: base name of the files within an OBJ's zip; made harmless.
        placement: size, unit, up axis and origin. A GLB always has y up and metres, as glTF demands.
        image: "png" or "jpeg": the texture in a GLB or a USDZ.

    Raises:
        UserError: an unknown format or choice, an empty mesh, positions that are not finite, an impossible
            placement.
    """
    if format == "glb":
        return to_glb(mesh, image, placement)
    if format == "obj":
        return to_obj_zip(mesh, name, placement)
    if format == "ply":
        return to_ply(mesh, placement)
    if format == "stl":
        return to_stl(mesh, placement)
    if format == "usdz":
        return to_usdz(mesh, image, placement)
    raise UserError(f"Unknown format {format[:40]!r}; choose one of {', '.join(SUFFIXES)}.")


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format of a file of that name: by its end, or `format` if given and not contradicted by the name.

    Raises:
        UserError: an unknown suffix or format, or a suffix that belongs to another format.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = {value: key for key, value in SUFFIXES.items()}.get(suffix)
    if suffix == ".obj" and format in (None, "obj"):
        raise UserError("An OBJ is saved as a zip with its material and texture; end the name in .zip.")
    if format is None:
        if by_suffix is None:
            known = ", ".join(SUFFIXES.values())
            raise UserError(f"Cannot tell the format of a file that ends in {suffix[:40]!r}; use {known}.")
        return by_suffix
    if format not in SUFFIXES:
        raise UserError(f"Unknown format {format[:40]!r}; choose one of {', '.join(SUFFIXES)}.")
    if by_suffix not in (None, format) or suffix == ".obj":
        raise UserError(f"A file that ends in {suffix} is no {format}; end the name in {SUFFIXES[format]}.")
    return format


def save(
    mesh: Mesh,
    path: str | os.PathLike[str],
    format: str | None = None,
    placement: Placement = AS_MODELLED,
    image: str = "png",
) -> Path:
    """Write the mesh to a file, whole or not at all; the format follows from the name's end unless given.

    Args:
        mesh: in model space.
        path: ends in .glb, .zip (an OBJ with its material and texture), .ply, .stl or .usdz.
        format: "glb", "obj", "ply", "stl" or "usdz", for names that end in something else.
        placement, image: as for `encode`.

    Raises:
        UserError: an unknown format, an empty mesh, positions that are not finite, no room to write.
    """
    data = encode(mesh, format_of(path, format), Path(path).stem, placement, image)
    return write_whole(path, data)
