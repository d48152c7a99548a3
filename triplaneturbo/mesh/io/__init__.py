"""Encode and save meshes: GLB, OBJ (a zip with its material and textures), PLY, STL, USDZ.

The formats are those of `registry.WRITERS`. Each has y up and its front toward +z, an STL is in millimetres
and the others in metres, unless a Placement says otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import WRITERS, WriteOptions, suffixes
from triplaneturbo.mesh.io.texture_formats import check_texture_format
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.request import shown
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
    from triplaneturbo.mesh.mesh import Mesh

__all__ = ["AS_MODELLED", "Placement", "encode", "format_of", "save"]


def encode(
    mesh: Mesh,
    format: str,
    name: str = "mesh",
    placement: Placement = AS_MODELLED,
    texture_format: str = "png",
    metadata: GenerationMetadata | None = None,
) -> bytes:
    """Return the bytes of a file; the same mesh gives the same bytes.

    Args:
        mesh: in model space.
        format: a key of `registry.WRITERS`.
        name: base name of the files within an OBJ's zip; made safe.
        placement: size, unit, up axis and origin. A GLB always has y up and metres, as glTF prescribes.
        texture_format: encoding of the textures in a GLB or a USDZ, one of `texture_formats.TEXTURE_FORMATS`.
        metadata: how the mesh was generated, stored by every format but STL; None: not stored.

    Raises:
        UserError: the format or an option is unknown, the mesh is empty, positions are not finite, or the
            placement is impossible.
    """
    check_texture_format(texture_format)
    return WRITERS[_known(format)].write(mesh, WriteOptions(placement, name, texture_format, metadata))


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """Return the format of a file: `format`, or else the one that the file's suffix belongs to.

    Raises:
        UserError: the suffix or the format is unknown, or the suffix belongs to another format.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = {value: name for name, value in suffixes().items()}.get(suffix)
    if suffix == ".obj" and format in (None, "obj"):
        raise UserError(
            "An OBJ is saved as a zip with its material and texture; use a name that ends in .zip."
        )
    if format is None:
        if by_suffix is None:
            known = ", ".join(suffixes().values())
            raise UserError(f"Unknown file suffix {shown(suffix)}; use one of {known}.")
        return by_suffix
    format = _known(format)
    if by_suffix not in (None, format) or suffix == ".obj":
        raise UserError(
            f"The suffix {suffix} does not fit the format {format}; use a name that ends in"
            f" {WRITERS[format].suffix}."
        )
    return format


def save(
    mesh: Mesh,
    path: str | os.PathLike[str],
    format: str | None = None,
    placement: Placement = AS_MODELLED,
    texture_format: str = "png",
    metadata: GenerationMetadata | None = None,
) -> Path:
    """Write a mesh to a file atomically.

    Args:
        mesh: in model space.
        path: of the file; its suffix selects the format unless `format` does.
        format: a key of `registry.WRITERS`, for names with another suffix.
        placement, texture_format, metadata: see `encode`.

    Raises:
        UserError: see `encode`; or the file cannot be written.
    """
    data = encode(mesh, format_of(path, format), Path(path).stem, placement, texture_format, metadata)
    return write_atomically(path, data)


def _known(format: str) -> str:
    if format not in WRITERS:
        raise UserError(f"Unknown format {shown(format)}; use one of {', '.join(WRITERS)}.")
    return format
