"""Differentiable renderings of triplanes, as input of the teachers.

Dual rendering (arXiv 2503.21694, section 3.2): a low-resolution volume rendering trains the geometry, and the
rasterized surface at high resolution trains the texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from triplaneturbo.mesh.extraction.marching_cubes import extract_topology, vertex_positions
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.grid_renderer import GridRendering, eikonal, gradient, render_grid, trilinear, unit
from triplaneturbo.render.rasterizer import barycentrics, interpolate, rasterize
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.render.volume import sparsity
from triplaneturbo.representations.triplane import FieldDecoder
from triplaneturbo.utils.random_streams import RandomStreams

CHUNK = 2**17  # points per colour query; larger queries are split and checkpointed
_MIN_OPACITY = 0.02  # minimum opacity of rays whose colour is queried


@dataclass(frozen=True)
class Volume:
    """A volume rendering and the field's regularizers.

    Attributes:
        seen: the renderings.
        sdf: the rendered SDF grid [B, R, R, R], over [-half, half]^3.
        half: half the grid's extent.
        eikonal: mean of (|gradient of the sdf| - 1)^2, a scalar.
        sparsity: mean of sqrt(opacity^2 + 0.01), a scalar.
    """

    seen: Renderings
    sdf: Tensor
    half: float
    eikonal: Tensor
    sparsity: Tensor


def volume(
    fields: FieldDecoder,
    planes: Tensor,
    scenes: SceneBatch,
    *,
    size: int,
    stride: int,
    first: tuple[int, int],
    nodes: int,
    half: float,
    sharpness: float,
    color_shrink: float,
    jitter: RandomStreams,
) -> Volume:
    """Volume-render triplanes [B, 6, C, H, W] from the scenes' cameras through an SDF grid.

    Args:
        size, stride, first: render pixels first[0]::stride, first[1]::stride of an image of size^2.
        nodes: resolution of the grid along each side.
        half: half the grid's extent; anything beyond is empty.
        sharpness: sharpness of the surface; see `render_grid`.
        color_shrink: factor on the gradient of colours.
        jitter: draws the sample offsets along rays.
    """
    batch, views = len(scenes.prompts), scenes.views
    axis = torch.linspace(-half, half, nodes, device=planes.device)
    sdf = fields.sdf_lattice(planes, axis)  # [B, R, R, R]
    origins, directions = scenes.cameras.rays(size, size)  # [B * V, size, size, 3]
    pick = (slice(None), slice(first[0], None, stride), slice(first[1], None, stride))
    origins, directions = (
        rays[pick].unflatten(0, (batch, views)).flatten(1, 3).to(planes.device, torch.float32)
        for rays in (origins, directions)
    )  # [B, V * h * w, 3]
    # In units of the grid, whose cube is [-1, 1]^3.
    view = render_grid(sdf / half, origins / half, directions, sharpness * half, nodes, jitter)
    return _compose(fields, planes, scenes, view, sdf, half, origins, directions, size // stride, stride,
    first,
                  color_shrink)  # fmt: skip


def _compose(
    fields: FieldDecoder, planes: Tensor, scenes: SceneBatch, view: GridRendering, sdf: Tensor, half: float,
    origins: Tensor, directions: Tensor, side: int, stride: int, first: tuple[int, int], color_shrink: float,
) -> Volume:  # fmt: skip
    points = (origins + directions * (view.distance.detach() * half)[..., None]).clamp(-1, 1)
    rgb = query_colors(fields, planes, points, view.opacity.detach() > _MIN_OPACITY)
    rgb = color_shrink * rgb + (1 - color_shrink) * rgb.detach()
    opacity = view.opacity[..., None]
    rgb = rgb * opacity + scenes.background[:, None] * (1 - opacity)
    shape = (scenes.views, side, side)
    back = scenes.cameras.c2w[:, :3, 2].unflatten(0, (-1, scenes.views)).to(directions)  # [B, V, 3]
    cosine = -(directions.unflatten(1, shape) * back[:, :, None, None]).sum(-1)
    seen = Renderings(
        rgb=rgb.unflatten(1, shape),
        opacity=view.opacity.unflatten(1, shape),
        normal=view.normal.unflatten(1, shape),
        depth=view.distance.unflatten(1, shape) * half * cosine,
        stride=stride,
        first=first,
    )
    return Volume(seen, sdf, half, eikonal(sdf / half).mean(), sparsity(view.opacity))


def query_colors(fields: FieldDecoder, planes: Tensor, points: Tensor, where: Tensor) -> Tensor:
    """Return colours [B, N, 3] at points [B, N, 3] where `where` [B, N] is True, 0 elsewhere."""
    colors = []
    for one, at, mask in zip(planes.split(1), points, where, strict=True):
        seen = at[mask]  # [M, 3]
        if len(seen) > CHUNK:
            # Checkpointed: features are sampled again in the backward pass instead of being kept.
            parts = [
                checkpoint(fields.rgb, one, part[None], use_reentrant=False) for part in seen.split(CHUNK)
            ]
            rgb = torch.cat(parts, 1)[0]
        else:
            rgb = fields.rgb(one, seen[None])[0]
        colors.append(rgb.new_zeros(len(at), 3).masked_scatter(mask[:, None], rgb))
    return torch.stack(colors)


def surface(
    fields: FieldDecoder, planes: Tensor, scenes: SceneBatch, sdf: Tensor, half: float,
    size: int, stride: int = 1, first: tuple[int, int] = (0, 0), shape_shrink: float = 0.0,
) -> Renderings:  # fmt: skip
    """Rasterize the surface of an SDF grid [B, R, R, R] over [-half, half]^3 at size^2.

    The grid is deformed by the field's offsets, as in an exported mesh. A grid without a surface gets one
    (`enforce_surface`), so that it can learn to have its own.

    Args:
        size, stride, first: return pixels first[0]::stride, first[1]::stride of an image of size^2.
        shape_shrink: factor on the gradient of the grid and its offsets through normals and depths; 0 to omit
            these. Colours give them no gradient: the volume rendering trains the shape.
    """
    batch, views, side = len(scenes.prompts), scenes.views, size // stride
    pick = (slice(None), slice(first[0], None, stride), slice(first[1], None, stride))
    origins, directions = (rays[pick] for rays in scenes.cameras.rays(size, size))  # [B * V, h, w, 3]
    points = planes.new_zeros(batch, views * side * side, 3)
    covered = torch.zeros(batch, views * side * side, dtype=torch.bool, device=planes.device)
    shapes: list[tuple[Tensor, Tensor]] = []
    for i, lattice in enumerate(sdf):
        lattice = enforce_surface(scale_gradient(lattice, shape_shrink))
        vertices, undeformed, faces = deformed_surface(fields, planes[i : i + 1], lattice, half, shape_shrink)
        rows = slice(i * views, (i + 1) * views)
        cameras = scenes.cameras[rows]
        with torch.no_grad():
            raster = rasterize(vertices.detach() * half, faces, cameras, size, size)
            cosine = -torch.einsum("vhwi,vi->vhw", directions[rows], cameras.c2w[:, :3, 2])
            at = origins[rows] + directions[rows] * (raster.depth[pick].to(cosine) / cosine)[..., None]
            points[i] = at.reshape(-1, 3).to(points)
            covered[i] = raster.mask[pick].flatten()
        if shape_shrink:
            shown = torch.full_like(raster.triangle, -1)
            shown[pick] = raster.triangle[pick]
            shapes.append(surface_geometry(lattice, half, vertices, undeformed, faces, cameras, shown, pick))
    rgb = query_colors(fields, planes, points.clamp(-1, 1), covered)
    mask = covered[..., None].float()
    rgb = rgb + scenes.background[:, None] * (1 - mask)
    shape = (views, side, side)
    normal, depth = (torch.stack(parts) for parts in zip(*shapes, strict=True)) if shapes else (None, None)
    return Renderings(rgb.unflatten(1, shape), mask[..., 0].unflatten(1, shape), normal, depth, stride, first)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x with its gradient multiplied by `factor`; at 0, x is detached."""
    return x.detach() + factor * (x - x.detach()) if factor else x.detach()


def enforce_surface(sdf: Tensor) -> Tensor:
    """Return an SDF grid [R, R, R] that has a surface.

    A grid of one sign would yield an empty rendering and no gradient. Its centre is shifted inside and its
    border outside, by constants, so that gradients pass (arXiv 2503.21694, appendix B, after InstantMesh,
    arXiv 2404.07191). Other grids are returned unchanged.
    """
    with torch.no_grad():
        low, high = sdf.amin(), sdf.amax()
        if low < 0 < high:
            return sdf
        middle = len(sdf) // 2
        shift = torch.zeros_like(sdf)
        for axis in range(3):
            shift.index_fill_(axis, torch.tensor((0, len(sdf) - 1), device=sdf.device), float(1 - low))
        shift[middle, middle, middle] = -1 - high
    return sdf + shift


def deformed_surface(
    fields: FieldDecoder, planes: Tensor, lattice: Tensor, half: float, shape_shrink: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Extract the surface of an SDF grid [R, R, R] that is deformed by the field's offsets.

    Offsets are in cells of the model's own grid, with which meshes are exported, whatever R and `half` are.
    They are evaluated only at the nodes beside the surface.

    Args:
        planes: feature planes of one scene [1, 6, C, H, W].
        half: half the grid's extent.
        shape_shrink: factor on the gradient of the offsets.

    Returns:
        vertices [N, 3] and vertices without deformation [N, 3], in units of `half`, and faces [F, 3].
    """
    topology = extract_topology(lattice.detach())
    ends = topology.ends()
    values = lattice.reshape(-1)[ends.clamp_min(0)]  # [N, 2]
    undeformed = vertex_positions(topology, ends, values, None)
    nodes, position = ends.clamp_min(0).unique(return_inverse=True)  # [M], [N, 2]
    size = len(lattice)
    index = torch.stack((nodes // size**2, nodes // size % size, nodes % size), 1)  # [M, 3]
    points = (index.to(lattice.dtype) * (2 / (size - 1)) - 1) * half
    with torch.set_grad_enabled(torch.is_grad_enabled() and shape_shrink != 0):
        offset = scale_gradient(fields.displacement(planes, points[None])[0], shape_shrink)
    cells = (size - 1) / (half * (fields.config.grid_resolution - 1))  # of this grid per cell of the model's
    return vertex_positions(topology, ends, values, offset[position] * cells), undeformed, topology.faces


def surface_geometry(
    lattice: Tensor, half: float, vertices: Tensor, undeformed: Tensor, faces: Tensor, cameras: Cameras,
    triangle: Tensor, pick: tuple[slice, slice, slice],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return world normals [V, h, w, 3] and view depths [V, h, w] of a rasterized surface.

    Both are differentiable in the grid and in the vertices extracted from it. Depth is that of the triangle's
    plane. Normals are unit SDF gradients at the grid nodes, interpolated at the hit point (moved back by the
    deformation), instead of vertex normals: both renderings then agree, and the gradient needs no sum over a
    vertex's faces, whose order is not deterministic on a GPU.

    Args:
        lattice: SDF grid [R, R, R] over [-half, half]^3.
        vertices, undeformed, faces: its surface with and without deformation, [N, 3] each, in units of
            `half`, and [F, 3].
        triangle: face index per pixel [V, H, W], -1 for background and pixels that are not needed.
        pick: index of the needed pixels [V, h, w].
    """
    gradients = unit(gradient(lattice[None] / half))[0]  # [R, R, R, 3]
    height, width = triangle.shape[1:]

    def one(view: int, vertices: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        camera = cameras[view]
        shown = triangle[view : view + 1]
        weights, depth = barycentrics(vertices * half, faces, camera, shown)
        depth = depth[pick]  # [1, h, w]
        moved = interpolate((vertices - undeformed) * half, faces, shown, weights)[pick]
        origins, directions = (rays[pick] for rays in camera.rays(height, width))  # [1, h, w, 3]
        cosine = -(directions * camera.c2w[:, None, None, :3, 2]).sum(-1)
        points = origins + directions * (depth / cosine)[..., None] - moved
        normal = trilinear(gradients[None], points / half)  # [1, h, w, 3]
        return normal[0], depth[0]

    # Checkpoint each view: one view of 512^2 keeps 0.25 GB.
    seen = [checkpoint(one, view, vertices, gradients, use_reentrant=False) for view in range(len(cameras))]
    normals, depths = zip(*seen, strict=True)
    return torch.stack(normals), torch.stack(depths)
