"""What all file formats share: checks, axes, names, images."""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import unit_of
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.mesh.processing.clean import smooth_normals

_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def checked(mesh: Mesh, placement: Placement, format: str) -> Mesh:
    """The mesh on the CPU in float32, in the file's unit and with unit normals, if it can stand in a file.

    Args:
        mesh: in model space.
        placement: its size, its unit and its origin are applied; its axes are left to `to_file_axes`.
        format: of the file, on which the unit depends.

    Raises:
        UserError: no faces, a position that is not finite, or an impossible placement.
        ValueError: attributes that do not belong together (a mistake of the caller).
    """
    placement = placement.checked()
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise UserError("The mesh is empty, so there is nothing to save; try another seed.")
    vertices = mesh.vertices.detach().cpu().float()
    faces = mesh.faces.detach().cpu().long()
    finite = torch.isfinite(vertices).all()
    if not finite or (mesh.uv is not None and not torch.isfinite(mesh.uv).all()):
        raise UserError("The mesh has positions that are not finite numbers; generate it again.")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ValueError("a face names a vertex that does not exist")
    parts: dict[str, Tensor | None] = {}
    for name, width in (("normals", 3), ("colors", 3), ("uv", 2), ("tangents", 4)):
        part = getattr(mesh, name)
        if part is not None and tuple(part.shape) != (len(vertices), width):
            raise ValueError(f"{name} must be [{len(vertices)}, {width}], not {tuple(part.shape)}")
        parts[name] = None if part is None else part.detach().cpu().float().contiguous()
    for name in ("texture", "normal_map"):
        image = getattr(mesh, name)
        if image is None:
            continue
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"{name} must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
        if mesh.uv is None:
            raise ValueError(f"a mesh with a {name} needs texture coordinates")
    parts["normals"] = _unit_normals(vertices, faces, parts["normals"])
    return mesh.replace(
        vertices=placement.place(vertices, unit_of(format, placement)).contiguous(),
        faces=faces.contiguous(),
        **parts,
    )


def _unit_normals(vertices: Tensor, faces: Tensor, normals: Tensor | None) -> Tensor:
    """Unit normals [V, 3]; where none is given, or one without a direction, the smooth one of the faces."""
    if normals is None:
        return smooth_normals(vertices, faces)
    length = normals.norm(dim=1, keepdim=True)
    proper = torch.isfinite(length) & (length > 1e-12)
    if proper.all():
        return normals / length
    return torch.where(proper, normals / length, smooth_normals(vertices, faces))


def to_file_axes(vectors: Tensor, up: str = "y") -> Tensor:
    """Turn vectors [..., 3] from model axes (z up, front +x) to a file's axes; a proper rotation.

    Args:
        vectors: positions, normals or tangents.
        up: "y": y up, front +z, as glTF has it. "z": z up, front -y, as programs for 3D printing and Blender
            have it (Blender gives a glTF file the same place when it imports it).

    Raises:
        UserError: another `up`.
    """
    x, y, z = vectors.unbind(-1)
    if up == "y":
        return torch.stack((y, z, x), dim=-1)
    if up == "z":
        return torch.stack((y, -x, z), dim=-1)
    raise UserError(f'A file has "y" or "z" up, not {up!r}; choose one of the two.')


def encode_image(image: np.ndarray, kind: str) -> bytes:
    """An sRGB or normal image, uint8 [H, W, 3], as a PNG or JPEG file.

    Args:
        image: the pixels, row 0 on top.
        kind: "png" (exact) or "jpeg" (smaller; quality 92, full colour resolution).

    Raises:
        UserError: another `kind`.
    """
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if kind == "png":
        picture.save(buffer, "PNG", compress_level=4)  # half the time of 6, files 1 % larger
    elif kind == "jpeg":
        picture.save(buffer, "JPEG", quality=92, subsampling=0)
    else:
        raise UserError(f'A texture is saved as "png" or "jpeg", not {kind!r}; choose one of the two.')
    return buffer.getvalue()


def safe_name(name: str) -> str:
    """A name that is harmless as a file name anywhere: at most 60 ASCII letters, digits, "-" and "_"."""
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", name[:1000]).strip("_-")[:60].rstrip("_-")
    if not safe:
        return "mesh"
    return f"_{safe}" if safe.lower() in _RESERVED else safe
