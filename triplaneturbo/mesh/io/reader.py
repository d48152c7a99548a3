"""Meshes of other programs: GLB, OBJ and PLY files are read as one `Mesh`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import DEFAULT_GREY
from triplaneturbo.render.colors import linear_to_srgb, sample, srgb_to_linear


def load_mesh(path: Path) -> Mesh | None:
    """Read a GLB, OBJ or PLY file in the axes in which this package writes them: y up, front +z.

    Base colour textures, base colour factors and vertex colours are read; several parts become one mesh,
    with one texture. Normals, normal maps and other maps are ignored.

    Returns:
        the mesh in model space; None if it has no faces.

    Raises:
        UserError: the file cannot be read.
    """
    return mesh_from(path, lambda: trimesh.load_scene(path, process=False))


def mesh_from(path: Path, load: Callable[[], Any]) -> Mesh | None:
    """Convert a scene of trimesh; see `load_mesh`.

    Args:
        path: its file, in messages; its suffix decides what its colours mean.
        load: loads the scene.
    """
    try:
        scene = load()
        # The colours of a GLB are linear; the other formats store sRGB.
        parts = [_part(*placed, linear=path.suffix.lower() == ".glb") for placed in _placed(scene)]
    except Exception as error:  # trimesh raises errors of many kinds for broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"Cannot read {path}: {reason}; export the mesh again.") from None
    return merge(parts) if parts else None


def _placed(scene: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield each part of a scene that has faces, with its matrix [4, 4]."""
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        if len(getattr(scene.geometry[name], "faces", ())) > 0:
            yield scene.geometry[name], matrix


def _part(loaded: Any, matrix: np.ndarray, linear: bool) -> Mesh:
    """Convert one part of a file, with a texture or vertex colours unless it has neither."""
    placed = trimesh.transform_points(np.asarray(loaded.vertices, dtype=np.float64), matrix)
    x, y, z = torch.from_numpy(placed.astype(np.float32)).unbind(1)
    vertices = torch.stack((z, x, y), dim=1)  # the inverse of mesh.io.common.to_file_axes
    if not torch.isfinite(vertices).all():
        raise ValueError("positions are not finite numbers")
    mesh = Mesh(vertices, torch.from_numpy(np.array(loaded.faces, dtype=np.int64)))
    visual = loaded.visual
    if visual.kind == "texture":
        return _with_material(mesh, visual, linear)
    if visual.kind == "vertex":
        return mesh.replace(colors=_srgb(visual.vertex_colors, linear))
    if visual.kind == "face":
        # Corners are separated, since the faces at a vertex may differ.
        corners = torch.arange(3 * len(mesh.faces)).reshape(-1, 3)
        colors = _srgb(visual.face_colors, linear).repeat_interleave(3, dim=0)
        return Mesh(vertices[mesh.faces.reshape(-1)], corners, colors=colors)
    return mesh


def _with_material(mesh: Mesh, visual: Any, linear: bool) -> Mesh:
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    factor = _factor(material, linear)
    if image is not None and visual.uv is not None:
        uv = torch.from_numpy(np.array(visual.uv[:, :2], dtype=np.float32))
        uv = torch.stack((uv[:, 0], 1 - uv[:, 1]), dim=1)  # trimesh's v grows upward
        return mesh.replace(uv=uv, texture=_tinted(np.array(image.convert("RGB")), factor))
    own = visual.vertex_attributes.get("color")
    if own is not None:
        return mesh.replace(colors=_srgb(own, linear))
    return mesh.replace(colors=factor.expand(len(mesh.vertices), 3).contiguous())


def _srgb(colors: np.ndarray, linear: bool) -> Tensor:
    """Return colours [N, 3 or 4], integers or floats, as sRGB in [0, 1] [N, 3]."""
    scale = np.iinfo(colors.dtype).max if colors.dtype.kind == "u" else 1
    values = torch.from_numpy(np.array(colors[:, :3], dtype=np.float32) / scale).clamp(0, 1)
    return linear_to_srgb(values) if linear else values


def merge(parts: Sequence[Mesh]) -> Mesh:
    """Merge parts into one mesh: their textures, if any has one, are stacked in one image.

    A part of one colour becomes a texture of one texel. If parts with several vertex colours are beside
    parts with textures, all get vertex colours.
    """
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)]).tolist()
    whole = Mesh(
        torch.cat([part.vertices for part in parts]),
        torch.cat([part.faces + start for part, start in zip(parts, starts, strict=False)]),
    )
    textured = [_as_textured(part) for part in parts]
    if all(part.texture is None for part in parts) or None in textured:
        return whole.replace(colors=torch.cat([_vertex_colors(part) for part in parts]))
    images = [texture for _, texture in filter(None, textured)]
    width, height = max(image.shape[1] for image in images), sum(len(image) for image in images)
    uv, top = [], 0
    for coordinates, image in filter(None, textured):
        # Half a texel from the border, so that bilinear sampling does not reach the neighbour.
        v = coordinates[:, 1].clamp(0, 1) * len(image)
        v = (top + v.clamp(0.5, len(image) - 0.5)) / height
        uv.append(torch.stack((coordinates[:, 0], v), dim=1))
        top += len(image)
    stacked = [np.asarray(Image.fromarray(image).resize((width, len(image)))) for image in images]
    return whole.replace(uv=torch.cat(uv), texture=np.concatenate(stacked))


def _as_textured(part: Mesh) -> tuple[Tensor, np.ndarray] | None:
    """Return texture coordinates and a texture of a part; None if it has several vertex colours."""
    if part.uv is not None and part.texture is not None:
        return part.uv, part.texture
    colors = _vertex_colors(part)
    if not torch.equal(colors, colors[:1].expand_as(colors)):
        return None
    texel = (colors[0] * 255).round().to(torch.uint8).numpy()
    return torch.full((len(colors), 2), 0.5), texel.reshape(1, 1, 3)


def _vertex_colors(part: Mesh) -> Tensor:
    """Return the colours of a part at its vertices [V, 3]."""
    if part.colors is not None:
        return part.colors
    if part.uv is not None and part.texture is not None:
        return sample(torch.from_numpy(part.texture.astype(np.float32)) / 255, part.uv)
    return torch.full_like(part.vertices, DEFAULT_GREY)


def _factor(material: Any, linear: bool) -> Tensor:
    """Return the base colour factor of a material as sRGB [3]; white if it has none."""
    name = "baseColorFactor" if linear else "diffuse"
    value = getattr(material, name, None)
    if value is None or (not linear and getattr(material, "image", None) is not None):
        return torch.ones(3)  # an OBJ's texture replaces Kd
    return _srgb(np.asarray(value)[None], linear)[0]


def _tinted(texture: np.ndarray, factor: Tensor) -> np.ndarray:
    """Multiply a texture uint8 [H, W, 3] by a factor, both sRGB, in linear light."""
    if bool((factor == 1).all()):
        return texture
    light = srgb_to_linear(torch.from_numpy(texture).float() / 255) * srgb_to_linear(factor)
    return (linear_to_srgb(light) * 255).round().to(torch.uint8).numpy()
