"""Bake a texture: each texel asks the field, at its own point of the surface."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.clean import smooth_normals
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.nearest import nearest_covered
from triplaneturbo.mesh.tangents import to_tangent_space, vertex_tangents
from triplaneturbo.mesh.unwrap import check_texture_size
from triplaneturbo.render import zbuffer

# Texels this near to a chart ask the field too: bilinear filtering at a chart's edge reads them.
GUTTER = 2.0


class Askable(Protocol):
    """What is asked of a field, at points [N, 3]."""

    def rgb(self, points: Tensor, /) -> Tensor:
        """sRGB in about [0, 1] [N, 3]."""
        ...

    def sdf(self, points: Tensor, /) -> Tensor:
        """Signed distance, negative inside [N]."""
        ...


def bake(
    mesh: Mesh, field: Askable, texture_size: int = 1024, normal_map: bool = True, cell: float = 2 / 159
) -> Mesh:
    """Give an unwrapped mesh its texture and, if asked for, a normal map of the field's fine shape.

    No optimisation and no interpolation of vertex colours: a texel's centre is taken to the surface, and the
    field is asked there. The rest of the image takes the colour of the nearest chart, so that no gap shows at
    any mip level.

    Args:
        mesh: with `uv`.
        field: its `device`, if it has one, is where it is asked.
        texture_size: texels a side, 512 to 4096.
        normal_map: also bake the directions of the sdf's gradient, seen from the smooth vertex normals.
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
    normals = smooth_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    mesh = mesh.replace(normals=normals)
    texels, face, bary, nearest = atlas(mesh.uv, mesh.faces, size)
    corners = mesh.faces[face]  # [N, 3]

    def at(attribute: Tensor) -> Tensor:
        return (attribute[corners] * bary[..., None]).sum(1)

    points = at(mesh.vertices).to(getattr(field, "device", mesh.vertices.device))
    mesh = mesh.replace(texture=_spread(field.rgb(points), texels, nearest))
    if not normal_map:
        return mesh
    tangents = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv, normals)
    outward = gradient(field, points, cell).to(normals)
    flat = at(normals)
    steep = outward.norm(dim=1, keepdim=True) > 1e-6  # no direction there: leave the surface as it is
    local = to_tangent_space(F.normalize(torch.where(steep, outward, flat), dim=1), flat, at(tangents))
    return mesh.replace(tangents=tangents, normal_map=_spread(0.5 + 0.5 * local, texels, nearest))


def gradient(field: Askable, points: Tensor, step: float) -> Tensor:
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


def atlas(uv: Tensor, faces: Tensor, size: int) -> tuple[np.ndarray, Tensor, Tensor, np.ndarray]:
    """Which texels belong to the surface, and where on it they are.

    Returns:
        texels: flat indices row * size + column of the N texels that have a point on the surface, the gutter
            included, int64 [N];
        face: the face of each [N]; bary: the point's barycentrics [N, 3], float32;
        nearest: for every texel the nearest of these, flat int32 [size, size].
    """
    flat = uv.detach().cpu().double() * size  # texel units, row 0 on top
    pixels = F.pad(flat, (0, 1), value=1.0)[None].numpy()  # homogeneous, all at depth 1
    indices = faces.cpu().numpy()
    triangle, bary, _ = zbuffer.draw(pixels, indices, 0.5, size, size, torch.get_num_threads())
    triangle, bary = triangle[0], bary[0]
    _add_missed(triangle, bary, flat.numpy(), indices)
    covered = triangle >= 0
    if not covered.any():  # nothing but degenerate charts: one texel stands for all
        triangle[0, 0], bary[0, 0], covered[0, 0] = 0, 1 / 3, True
    nearest = nearest_covered(covered)
    gutter = np.flatnonzero(~covered & (_distance(nearest) <= GUTTER))
    triangle.reshape(-1)[gutter] = triangle.reshape(-1)[nearest.reshape(-1)[gutter]]
    bary.reshape(-1, 3)[gutter] = _nearest_bary(
        gutter, triangle.reshape(-1)[gutter], flat.numpy(), indices, size
    )
    texels = np.flatnonzero(triangle >= 0)
    own = np.arange(size * size, dtype=np.int32).reshape(size, size)
    nearest = np.where(triangle >= 0, own, nearest)
    face = torch.from_numpy(triangle.reshape(-1)[texels]).to(faces.device)
    return texels, face, torch.from_numpy(bary.reshape(-1, 3)[texels]).float().to(uv.device), nearest


def _add_missed(triangle: np.ndarray, bary: np.ndarray, flat: np.ndarray, faces: np.ndarray) -> None:
    """Give faces that hold no texel's centre the texel under their own centre, where it is free."""
    size = len(triangle)
    missed = np.ones(len(faces), bool)
    missed[triangle[triangle >= 0]] = False
    missed = np.flatnonzero(missed)
    centre = flat[faces[missed]].mean(1)  # [M, 2]
    column, row = np.clip(centre.astype(np.int64), 0, size - 1).T
    free = triangle[row, column] < 0
    triangle[row[free], column[free]] = missed[free]
    bary[row[free], column[free]] = 1 / 3


def _distance(nearest: np.ndarray) -> np.ndarray:
    """How far, in texels, each texel is from the one named in `nearest` [H, W]."""
    height, width = nearest.shape
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    return np.hypot(nearest // width - rows, nearest % width - columns)


def _nearest_bary(
    texels: np.ndarray, face: np.ndarray, flat: np.ndarray, faces: np.ndarray, size: int
) -> np.ndarray:
    """Barycentrics [N, 3] of the texels' centres on their face's plane, brought into the face."""
    centre = np.stack((texels % size, texels // size), 1) + 0.5
    a, b, c = np.moveaxis(flat[faces[face]], 1, 0)  # [N, 2] each

    def cross(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        return one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]

    whole = cross(b - a, c - a)
    sound = np.abs(whole) > 1e-12
    weight_b = np.where(sound, cross(centre - a, c - a) / np.where(sound, whole, 1), 1 / 3)
    weight_c = np.where(sound, cross(b - a, centre - a) / np.where(sound, whole, 1), 1 / 3)
    inside = np.clip(np.stack((1 - weight_b - weight_c, weight_b, weight_c), 1), 0, None)
    return inside / inside.sum(1, keepdims=True)


def _spread(values: Tensor, texels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Values in [0, 1] [N, 3] of some texels as a whole image, uint8 [H, W, 3]."""
    bytes_ = (values.detach().clamp(0, 1).cpu() * 255).round().to(torch.uint8).numpy()
    image = np.zeros((nearest.size, 3), np.uint8)
    image[texels] = bytes_
    return image[nearest.reshape(-1)].reshape(*nearest.shape, 3)
