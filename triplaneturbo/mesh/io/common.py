"""Helpers of all mesh formats: validation, axes, colours, images, text, zips, file names."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import QUALITY, unit_of
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.render.colors import sample
from triplaneturbo.utils.threads import in_threads

_Name = TypeVar("_Name", bound=Hashable)
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}


def checked(mesh: Mesh, placement: Placement, format: str, reference_vertices: Tensor | None = None) -> Mesh:
    """Validate a mesh for writing; return it in float32 on the CPU, in the file's unit, with unit normals.

    Args:
        mesh: in model space.
        placement: its size, unit and origin are applied; `to_file_axes` applies its axes.
        format: format of the file, on which the unit depends.
        reference_vertices: [W, 3], the object that the mesh is a coarser version of; None: the mesh itself.

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
        vertices=placement.place(vertices, unit_of(format, placement), reference_vertices).contiguous(),
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


def encode_image(image: np.ndarray, kind: str, quality: int = QUALITY) -> bytes:
    """Encode a texture or normal map, uint8 [H, W, 3], as a PNG, JPEG or WebP file.

    Args:
        image: the pixels, row 0 on top.
        kind: "png" (lossless), "jpeg" (smaller; no chroma subsampling) or "webp" (smaller still).
        quality: of a JPEG or WebP, 0 to 100.

    Raises:
        UserError: `kind` is neither.
    """
    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if kind == "png":
        picture.save(buffer, "PNG", compress_level=4)  # half the time of level 6, files 1 % larger
    elif kind == "jpeg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    elif kind == "webp":
        picture.save(buffer, "WEBP", quality=quality, method=4)
    else:
        raise UserError(f'Invalid texture format {kind!r}; choose "png", "jpeg" or "webp".')
    return buffer.getvalue()


def encode_images(
    images: Mapping[_Name, tuple[np.ndarray, str]], quality: int = QUALITY
) -> dict[_Name, bytes]:
    """Encode several images in threads, each with its kind, as `encode_image` does."""
    names, files = list(images), {}

    def work(first: int, last: int) -> None:
        for name in names[first:last]:
            pixels, kind = images[name]
            files[name] = encode_image(pixels, kind, quality)

    in_threads(work, len(names), chunk=1)
    return {name: files[name] for name in names}


def nondegenerate(faces: Tensor) -> Tensor:
    """Return the mask [F] of the faces [F, 3] with three distinct corners.

    Raises:
        UserError: there is no such face.
    """
    a, b, c = faces.unbind(1)
    distinct = (a != b) & (b != c) & (c != a)
    if not distinct.any():
        raise UserError("The mesh is empty: no face has an area. Try another seed.")
    return distinct


def vertex_colors(mesh: Mesh) -> Tensor | None:
    """Return sRGB vertex colours as whole numbers from 0 to 255 [V, 3]; None if the mesh has no colours.

    Without vertex colours, the texture is sampled at each vertex.
    """
    if mesh.colors is not None:
        colors = mesh.colors
    elif mesh.texture is not None and mesh.uv is not None:
        colors = sample(torch.from_numpy(mesh.texture.astype(np.float32)) / 255, mesh.uv)
    else:
        return None
    return (colors.nan_to_num().clamp(0, 1) * 255).round()


def format_rows(pattern: str, rows: np.ndarray) -> str:
    """Format each row of an array [N, C] as one line."""
    return (pattern + "\n") * len(rows) % tuple(rows.reshape(-1).tolist())


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by path; all fields that depend on the clock or the system are fixed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_STORED if path.endswith(".png") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=3)
    return buffer.getvalue()


def safe_name(name: str) -> str:
    """Return a file name that is valid on every system: at most 60 ASCII letters, digits, "-" and "_"."""
    safe = re.sub(r"[^A-Za-z0-9-]+", "_", name[:1000]).strip("_-")[:60].rstrip("_-")
    if not safe:
        return "mesh"
    return f"_{safe}" if safe.lower() in _RESERVED else safe
