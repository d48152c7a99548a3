"""Colour a mesh: each texel, or each vertex, asks the field at its own point of the surface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.mesh.uv.atlas import Atlas, lay_out
from triplaneturbo.mesh.uv.tangents import split_frames, to_tangent_space, vertex_tangents
from triplaneturbo.mesh.uv.unwrap import check_texture_size


class QueryableField(Protocol):
    """What is asked of a field, at points [N, 3]."""

    def rgb(self, points: Tensor, /) -> Tensor:
        """sRGB in about [0, 1] [N, 3]."""
        ...

    def sdf(self, points: Tensor, /) -> Tensor:
        """Signed distance, negative inside [N]."""
        ...


def bake(
    mesh: Mesh,
    field: QueryableField,
    texture_size: int = 1024,
    normal_map: bool = True,
    cell: float = 2 / 159,
) -> Mesh:
    """Give an unwrapped mesh its texture and, if asked for, a normal map of the field's fine shape.

    No optimisation and no interpolation of vertex colours: a texel's centre is taken to the surface, and the
    field is asked there. The rest of the image takes the colour of the nearest chart, so that no gap shows at
    any mip level.

    Args:
        mesh: with `uv`.
        field: its `device`, if it has one, is where it is asked.
        texture_size: texels a side, 512 to 4096.
        normal_map: also bake the directions of the sdf's gradient, seen from the smooth vertex normals, in an
            image of half the side: over a cell they hardly change from one texel to the next.
        cell: the length over which that gradient is taken. The planes are sampled bilinearly, so the exact
            gradient breaks at every texel of theirs and shows as creases; over a cell of the grid it is
            what the surface was like before it was simplified.

    Returns:
        The mesh with `texture`, `normals` and, if asked for, `tangents` and `normal_map`.

    Raises:
        UserError: the texture size cannot be.
        ValueError: the mesh has no uv.
    """
    if mesh.uv is None:
        raise ValueError("the mesh has no uv: unwrap it first")
    size = check_texture_size(texture_size)
    uv = mesh.uv
    if mesh.normals is None:
        mesh = mesh.replace(normals=smooth_normals(mesh.vertices, mesh.faces))
    device = getattr(field, "device", mesh.vertices.device)
    faces = mesh.faces.to(device)
    layout = lay_out(uv.to(device), faces, size)
    points = _at(mesh.vertices.to(device), faces, layout)
    mesh = mesh.replace(texture=_spread(field.rgb(points), layout))
    return _bake_normals(mesh, field, size // 2, cell) if normal_map else mesh


def paint(mesh: Mesh, field: QueryableField) -> Mesh:
    """The mesh with `colors` and `normals` at its vertices, for where no texture is wanted."""
    points = mesh.vertices.to(getattr(field, "device", mesh.vertices.device))
    colors = field.rgb(points).detach().clamp(0, 1).to(mesh.vertices)
    return mesh.replace(colors=colors, normals=smooth_normals(mesh.vertices, mesh.faces))


def _bake_normals(mesh: Mesh, field: QueryableField, size: int, cell: float) -> Mesh:
    """The mesh with its tangents and a normal map of `size` texels a side."""
    mesh = split_frames(mesh)
    assert mesh.uv is not None
    assert mesh.normals is not None
    tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv, mesh.normals)
    device = getattr(field, "device", mesh.vertices.device)
    faces = mesh.faces.to(device)
    layout = lay_out(mesh.uv.to(device), faces, size)
    points, normals, frame = (
        _at(attribute.to(device), faces, layout) for attribute in (mesh.vertices, mesh.normals, tangents)
    )
    outward = gradient(field, points, cell).to(normals)
    steep = outward.norm(dim=1, keepdim=True) > 1e-6  # no direction there: leave the surface as it is
    local = to_tangent_space(F.normalize(torch.where(steep, outward, normals), dim=1), normals, frame)
    return mesh.replace(tangents=tangents, normal_map=_spread(0.5 + 0.5 * local, layout))


def _at(attribute: Tensor, faces: Tensor, layout: Atlas) -> Tensor:
    """A vertex attribute [V, C] at the points of the atlas' texels [N, C]."""
    return (attribute[faces[layout.face]] * layout.bary[..., None]).sum(1)


def gradient(field: QueryableField, points: Tensor, step: float) -> Tensor:
    """The sdf's gradient at points [N, 3], from its values at a tetrahedron's corners around each: [N, 3].

    Args:
        field: the field.
        points: where.
        step: how far the corners are along each axis.
    """
    corners = points.new_tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    total = torch.zeros_like(points)
    for corner in corners:
        total += field.sdf(points + step * corner)[:, None] * corner
    return total / (4 * step)


def _spread(values: Tensor, layout: Atlas) -> np.ndarray:
    """Values in [0, 1] [N, 3] of the atlas' texels as a whole image, uint8 [H, W, 3]."""
    nearest = layout.nearest
    image = torch.zeros(nearest.numel(), 3, dtype=torch.uint8, device=nearest.device)
    image[layout.texels] = (values.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return image[nearest.flatten().long()].view(*nearest.shape, 3).cpu().numpy()
