"""The registry of mesh formats. A new format is one new file in this folder and one line in `WRITERS`.

The registry imports no writer until one is called, so that the page and the command line can list the formats
without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triplaneturbo.mesh.placement import AUTO, Placement

if TYPE_CHECKING:
    from torch import Tensor

    from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
    from triplaneturbo.mesh.mesh import Mesh


QUALITY = 92


@dataclass(frozen=True)
class WriteOptions:
    """What a writer may use besides the mesh.

    Attributes:
        placement: size, unit, up axis and origin.
        name: base name of the files within an archive.
        texture_format: encoding of embedded textures, one of TEXTURE_FORMATS.
        metadata: how the mesh was generated, for formats that can store it; None: not stored.
        quality: of JPEG and WebP images, 0 to 100.
        reference_vertices: [W, 3], the object that the mesh is a coarser version of, which size and origin of
            a GLB refer to; None: the mesh itself.
    """

    placement: Placement
    name: str
    texture_format: str
    metadata: GenerationMetadata | None = None
    quality: int = QUALITY
    reference_vertices: Tensor | None = None


@dataclass(frozen=True)
class MeshWriter:
    """One mesh format.

    Attributes:
        name: as users write it, such as "glb".
        suffix: of the file, with its dot.
        media_type: of the file when it is served.
        unit: of the numbers in the file unless the user chooses another; a key of `placement.UNITS`.
        write: return the bytes of the file; the same mesh and options give the same bytes.
        prescribed: whether the format prescribes its unit and up axis, so that neither can be chosen.
    """

    name: str
    suffix: str
    media_type: str
    unit: str
    write: Callable[[Mesh, WriteOptions], bytes]
    prescribed: bool = False


def _from(module: str, function: str = "write") -> Callable[[Mesh, WriteOptions], bytes]:
    """A function of a module of this folder, which is imported at the first call."""

    def write(mesh: Mesh, options: WriteOptions) -> bytes:
        writer = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        data: bytes = writer(mesh, options)
        return data

    return write


# In the order in which the page and the help texts list them.
WRITERS: dict[str, MeshWriter] = {
    writer.name: writer
    for writer in (
        MeshWriter("glb", ".glb", "model/gltf-binary", "m", _from("gltf"), prescribed=True),
        MeshWriter("obj", ".zip", "application/zip", "m", _from("obj")),
        MeshWriter("ply", ".ply", "application/octet-stream", "m", _from("points", "write_ply")),
        MeshWriter("stl", ".stl", "model/stl", "mm", _from("points", "write_stl")),
        MeshWriter("3mf", ".3mf", "model/3mf", "mm", _from("threemf")),
        MeshWriter("usdz", ".usdz", "model/vnd.usdz+zip", "m", _from("usdz")),
    )
}


def unit_of(format: str, placement: Placement) -> str:
    """The unit of the numbers in a file of that format: a key of `placement.UNITS`."""
    writer = WRITERS[format]
    return writer.unit if placement.unit == AUTO or writer.prescribed else placement.unit


def suffixes() -> dict[str, str]:
    """The suffix of each format, by name."""
    return {name: writer.suffix for name, writer in WRITERS.items()}
