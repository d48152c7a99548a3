"""Helpers of all mesh formats: validation, axes, images, file names."""

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
    """Validate a mesh for writing; return it in float32 on the CPU, in the file's unit, with unit normals.

    Args:
        mesh: in model space.
        placement: its size, unit and origin are applied; `to_file_axes` applies its axes.
        format: format of the file, on which the unit depends.

    Raises:
        UserError: the mesh has no faces, positions are not finite, or the placement is invalid.
        ValueError: attributes are inconsistent (an error of the caller).
    """
    placement = placement.checked()
    if len(mesh.faces) == 0 or len(mesh.vertices) == 0:
        raise UserError("The mesh is empty, so there is nothing to save; try another seed.")
    vertices = mesh.vertices.detach().cpu().float()
    faces = mesh.faces.detach().cpu().long()
    finite = torch.isfinite(vertices).all()
    if not finite or (mesh.uv is not None and not torch.isfinite(mesh.uv).all()):
        raise UserError("The mesh has positions that are not finite numbers; try another seed.")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ValueError("faces refer to a vertex that does not exist")
    attributes: dict[str, Tensor | None] = {}
    for name, width in (("normals", 3), ("colors", 3), ("uv", 2), ("tangents", 4)):
        attribute = getattr(mesh, name)
        if attribute is not None and tuple(attribute.shape) != (len(vertices), width):
            raise ValueError(f"{name} must be [{len(vertices)}, {width}], not {tuple(attribute.shape)}")
        attributes[name] = None if attribute is None else attribute.detach().cpu().float().contiguous()
    for name in ("texture", "normal_map"):
        image = getattr(mesh, name)
        if image is None:
            continue
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"{name} must be uint8 [H, W, 3], not {image.dtype} {image.shape}")
        if mesh.uv is None:
            raise ValueError(f"a mesh with a {name} must have uv")
    attributes["normals"] = _unit_normals(vertices, faces, attributes["normals"])
    return mesh.replace(
        vertices=placement.place(vertices, unit_of(format, placement)).contiguous(),
        faces=faces.contiguous(),
        **attributes,
    )


def _unit_normals(vertices: Tensor, faces: Tensor, normals: Tensor | None) -> Tensor:
    """Return unit normals [V, 3]; smooth normals of the faces where they are missing or zero."""
    if normals is None:
        return smooth_normals(vertices, faces)
    length = normals.norm(dim=1, keepdim=True)
    nonzero = torch.isfinite(length) & (length > 1e-12)
    if nonzero.all():
        return normals / length
    return torch.where(nonzero, normals / length, smooth_normals(vertices, faces))


def to_file_axes(vectors: Tensor, up: str = "y") -> Tensor:
    """Rotate vectors [..., 3] from model axes (z up, front +x) to a file's axes.

    Args:
        vectors: positions, normals or tangents.
        up: "y": y up, front +z, the convention of glTF. "z": z up, front -y, the convention of Blender and
            of programs for 3D printing (an imported glTF file has the same orientation in Blender).

    Raises:
        UserError: `up` is neither.
    """
    x, y, z = vectors.unbind(-1)
    if up == "y":
        return torch.stack((y, z, x), dim=-1)
    if up == "z":
        return torch.stack((y, -x, z), dim=-1)
    raise UserError(f'Invalid up axis {up!r}; choose "y" or "z".')


def encode_image(image: np.ndarray, kind: str) -> bytes:
    """Encode a texture or normal map, uint8 [H, W, 3], as a PNG or JPEG file.

    Args:
        image: the pixels, row 0 on top.
        kind: "png" (lossless) or "jpeg" (smaller; quality 92, no chroma subsampling).

    Raises:
        UserError: `kind` is neither.
    """
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if kind == "png":
        picture.save(buffer, "PNG", compress_level=4)  # half the time of level 6, files 1 % larger
    elif kind == "jpeg":
        picture.save(buffer, "JPEG", quality=92, subsampling=0)
    else:
        raise UserError(f'Invalid texture format {kind!r}; choose "png" or "jpeg".')
    return buffer.getvalue()


def safe_name(name: str) -> str:
    """Return a file name that is valid on every system: at most 60 ASCII letters, digits, "-" and "_"."""
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", name[:1000]).strip("_-")[:60].rstrip("_-")
    if not safe:
        return "mesh"
    return f"_{safe}" if safe.lower() in _RESERVED else safe
