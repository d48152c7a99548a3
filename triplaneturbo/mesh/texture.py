"""Texture baking: query the field at the surface point of each texel, or at each vertex."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh import texture_kernels
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.mesh.uv.atlas import Atlas, rasterize_atlas
from triplaneturbo.mesh.uv.tangents import split_frames, to_tangent_space, vertex_tangents
from triplaneturbo.mesh.uv.unwrap import check_texture_size


class QueryableField(Protocol):
    """A field that can be queried for colour and signed distance at points [N, 3]."""

    def rgb(self, points: Tensor, /) -> Tensor:
        """Return sRGB colours, approximately in [0, 1], [N, 3]."""
        ...

    def sdf(self, points: Tensor, /) -> Tensor:
        """Return signed distances, negative inside, [N]."""
        ...


def bake(
    mesh: Mesh,
    field: QueryableField,
    texture_size: int = 1024,
    normal_map: bool = True,
    cell: float = 2 / 159,
) -> Mesh:
    """Bake the texture of an unwrapped mesh and, optionally, a normal map of the field's fine shape.

    Nothing is optimised, and vertex colours are not interpolated: each texel's centre is mapped to the
    surface, and the field is queried there. Texels outside all charts take the colour of the nearest chart,
    so that no gap shows at any mip level.

    Args:
        mesh: with `uv`.
        field: queried on its `device`, if it has one, else on the device of the mesh.
        texture_size: texels per side, 512 to 4096.
        normal_map: also bake the normalised gradient of the sdf, relative to the smooth vertex normals, into
            an image of half the side (over one cell, the gradient hardly changes between texels).
        cell: step of the finite differences of that gradient. The planes are sampled bilinearly, so the
            exact gradient is discontinuous at their texels and shows as creases; differences over one cell
            of the extraction grid give the normals of the surface before simplification.

    Returns:
        The mesh with `texture`, `normals` and, if requested, `tangents` and `normal_map`.

    Raises:
        UserError: the texture size is invalid.
        ValueError: the mesh has no uv.
    """
    if mesh.uv is None:
        raise ValueError("mesh has no uv; unwrap it first")
    size = check_texture_size(texture_size)
    uv = mesh.uv
    if mesh.normals is None:
        mesh = mesh.replace(normals=smooth_normals(mesh.vertices, mesh.faces))
    device = getattr(field, "device", mesh.vertices.device)
    faces = mesh.faces.to(device)
    atlas = rasterize_atlas(uv.to(device), faces, size)
    points = interpolate(mesh.vertices.to(device), faces, atlas)
    mesh = mesh.replace(texture=_fill_image(field.rgb(points), atlas))
    return _bake_normals(mesh, field, size // 2, cell) if normal_map else mesh


def bake_colors(mesh: Mesh, texture_size: int = 1024) -> np.ndarray:
    """Bake the vertex colours of an unwrapped mesh; texels outside all charts take the nearest chart's.

    Args:
        mesh: with `uv` and `colors`.
        texture_size: texels per side, 512 to 4096.

    Returns:
        sRGB uint8 [H, W, 3].

    Raises:
        UserError: the texture size is invalid.
        ValueError: the mesh has no uv or no colours.
    """
    if mesh.uv is None or mesh.colors is None:
        raise ValueError("mesh has no uv or no colors")
    atlas = rasterize_atlas(mesh.uv, mesh.faces, check_texture_size(texture_size))
    return _fill_image(interpolate(mesh.colors, mesh.faces, atlas), atlas)


def paint(mesh: Mesh, field: QueryableField) -> Mesh:
    """Return the mesh with `colors` from the field and smooth `normals` at its vertices, no texture."""
    points = mesh.vertices.to(getattr(field, "device", mesh.vertices.device))
    colors = field.rgb(points).detach().clamp(0, 1).to(mesh.vertices)
    return mesh.replace(colors=colors, normals=smooth_normals(mesh.vertices, mesh.faces))


def _bake_normals(mesh: Mesh, field: QueryableField, size: int, cell: float) -> Mesh:
    """Return the mesh with tangents and a normal map of `size` texels per side."""
    mesh = split_frames(mesh)
    assert mesh.uv is not None
    assert mesh.normals is not None
    tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv, mesh.normals)
    device = getattr(field, "device", mesh.vertices.device)
    faces = mesh.faces.to(device)
    atlas = rasterize_atlas(mesh.uv.to(device), faces, size)
    points, normals, frame = (
        interpolate(attribute.to(device), faces, atlas)
        for attribute in (mesh.vertices, mesh.normals, tangents)
    )
    outward = sdf_gradient(field, points, cell).to(normals)
    local = local_normals(outward, normals, frame)
    return mesh.replace(tangents=tangents, normal_map=_fill_image(0.5 + 0.5 * local, atlas))


def local_normals(outward: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
    """Express gradients in tangent space.

    Args:
        outward: gradients of the sdf [N, 3]; where they vanish, the vertex normal is kept.
        normals, tangents: as in `to_tangent_space`, [N, 3] and [N, 4].

    Returns:
        unit vectors [N, 3].
    """
    if outward.device.type == "cpu":
        return texture_kernels.local_normals(outward, normals, tangents)
    steep = outward.norm(dim=1, keepdim=True) > 1e-6
    return to_tangent_space(F.normalize(torch.where(steep, outward, normals), dim=1), normals, tangents)


def interpolate(attribute: Tensor, faces: Tensor, atlas: Atlas) -> Tensor:
    """Interpolate a vertex attribute [V, C] at the surface points of the atlas' texels [N, C]."""
    if attribute.device.type == "cpu":
        return texture_kernels.interpolate(attribute, faces, atlas)
    return (attribute[faces[atlas.face]] * atlas.bary[..., None]).sum(1)


def sdf_gradient(field: QueryableField, points: Tensor, step: float) -> Tensor:
    """Return the gradient of the sdf [N, 3] by finite differences on the corners of a tetrahedron.

    Args:
        field: the field.
        points: centres of the tetrahedra [N, 3].
        step: distance of the corners from the centre along each axis.
    """
    corners = points.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    # The corners of a point are adjacent, so that they find the same texels of the planes in the cache.
    a, b, c, d = field.sdf((points[:, None] + step * corners).view(-1, 3)).view(-1, 4).unbind(1)
    return torch.stack((a + b - c - d, a - b + c - d, a - b - c + d), 1) / (4 * step)


def _fill_image(values: Tensor, atlas: Atlas) -> np.ndarray:
    """Write values in [0, 1] [N, 3] of the atlas' texels to an image, uint8 [H, W, 3], and fill its gaps."""
    if values.device.type == "cpu":
        return texture_kernels.fill_image(values, atlas)
    nearest = atlas.nearest
    image = torch.zeros(nearest.numel(), 3, dtype=torch.uint8, device=nearest.device)
    image[atlas.texels] = (values.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return image[nearest.flatten().long()].view(*nearest.shape, 3).cpu().numpy()
