"""OBJ writer: a zip with the mesh, its material and its textures."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from triplaneturbo.mesh.io.common import (
    checked,
    encode_images,
    format_rows,
    safe_name,
    to_file_axes,
    zip_files,
)
from triplaneturbo.mesh.io.generation_metadata import KEY, GenerationMetadata
from triplaneturbo.mesh.io.registry import WriteOptions
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import weld


def to_obj_zip(
    mesh: Mesh,
    name: str = "mesh",
    placement: Placement = AS_MODELLED,
    metadata: GenerationMetadata | None = None,
) -> bytes:
    """Encode a mesh as a zip of NAME.obj and, with a texture or normal map, NAME.mtl and its images.

    The images are NAME.png (texture) and NAME_normal.png (normal map). Vertices on UV seams are welded (an
    OBJ indexes positions and texture coordinates separately), so that other programs see a closed surface.
    Without a texture, vertex colours are appended to the positions as sRGB, and no material is written, since
    some programs would then ignore them. The same mesh and name give the same bytes.

    Args:
        mesh: in model space.
        name: base name of the files in the zip; invalid characters are replaced.
        placement: size, unit (metres by default), up axis and origin.
        metadata: how the mesh was generated, written as a comment of the .obj; None: not written.

    Returns:
        The bytes of the zip.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the placement is invalid.
    """
    mesh = checked(mesh, placement, "obj")
    name = safe_name(name)
    files = {f"{name}.obj": _obj(mesh, name, placement.up, metadata).encode()}
    if _has_material(mesh):
        files[f"{name}.mtl"] = _mtl(mesh, name).encode()
    images = {f"{name}.png": mesh.texture, f"{name}_normal.png": mesh.normal_map}
    pictures = {file: (pixels, "png") for file, pixels in images.items() if pixels is not None}
    return zip_files(files | encode_images(pictures))


def _obj(mesh: Mesh, name: str, up: str, metadata: GenerationMetadata | None) -> str:
    welded = weld(mesh.vertices)
    positions = to_file_axes(mesh.vertices[welded.first], up).numpy()
    comment = "" if metadata is None else f"# {KEY} {metadata.as_text()}\n"
    parts = [
        "# TriplaneTurbo\n",
        comment,
        f"mtllib {name}.mtl\n" if _has_material(mesh) else "",
        f"o {name}\n",
    ]
    if mesh.colors is not None and mesh.texture is None:
        colors = mesh.colors[welded.first].clamp(0, 1).nan_to_num().numpy()
        parts.append(
            format_rows("v %.8g %.8g %.8g %.4f %.4f %.4f", np.concatenate((positions, colors), axis=1))
        )
    else:
        parts.append(format_rows("v %.8g %.8g %.8g", positions))
    corners: list[Tensor] = [welded.index[mesh.faces] + 1]  # [F, 3] each: position, (uv,) normal
    pattern = "%d//%d"
    if mesh.uv is not None:
        uv = mesh.uv.numpy().astype(np.float64)
        uv[:, 1] = 1 - uv[:, 1]  # an OBJ's v grows upward
        parts.append(format_rows("vt %.7g %.7g", uv))
        corners.append(mesh.faces + 1)
        pattern = "%d/%d/%d"
    parts.append(format_rows("vn %.5f %.5f %.5f", to_file_axes(mesh.normals, up).numpy()))
    corners.append(mesh.faces + 1)
    rows = np.stack([part.numpy() for part in corners], axis=-1).reshape(len(mesh.faces), -1)
    if _has_material(mesh):
        parts.append("usemtl surface\n")
    parts.append(format_rows(f"f {pattern} {pattern} {pattern}", rows))
    return "".join(parts)


def _has_material(mesh: Mesh) -> bool:
    return mesh.texture is not None or mesh.normal_map is not None


def _mtl(mesh: Mesh, name: str) -> str:
    lines = ["# TriplaneTurbo", "newmtl surface", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1"]
    lines += ["Pr 0.9", "Pm 0"]
    if mesh.texture is not None:
        lines.append(f"map_Kd {name}.png")
    if mesh.normal_map is not None:
        lines.append(f"norm {name}_normal.png")
    return "\n".join(lines) + "\n"


def write(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return an OBJ in a zip for the registry."""
    return to_obj_zip(mesh, options.name, options.placement, options.metadata)
