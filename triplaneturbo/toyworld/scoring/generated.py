"""`Generated`: a surface with colours from a model, the ground truth or a baseline sphere; its renderings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.processing.clean import drop_floaters, smooth_normals, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.models.weights import Model
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizer import interpolate, rasterize
from triplaneturbo.request import DEFAULT_FACES
from triplaneturbo.toyworld.scene.view_renderer import shade

FLOATER = 0.001  # fraction of the surface's area above which a component other than the largest is a floater


@dataclass(frozen=True)
class Generated:
    """The result of one prompt.

    Attributes:
        mesh: vertices and faces as the user gets them.
        raw: the surface before clean-up.
        rgb: maps points [N, 3] of the surface to sRGB colours [N, 3].
    """

    mesh: Mesh
    raw: Mesh
    rgb: Callable[[Tensor], Tensor]

    @property
    def floaters(self) -> int:
        """Number of floaters in the raw surface; see `FLOATER`."""
        return _count_floaters(self.raw)

    @property
    def floaters_left(self) -> int:
        """Number of floaters left in the mesh that the user gets."""
        return _count_floaters(self.mesh)


def make_generate(model: Model) -> Callable[[str, int], Generated]:
    """Return a function (prompt, seed) -> `Generated` that runs a model like `Pipeline` up to UV unwrapping.

    Colours are queried from the field, without the detour of a baked texture.
    """

    @torch.no_grad()
    def make(prompt: str, seed: int) -> Generated:
        """Generate a surface; raises EmptySurfaceError if there is none."""
        generator, config = model.generator, model.config
        noise = generator.draw_latents(1, torch.Generator().manual_seed(seed))  # [1, 6, 4, h, h]
        for estimate in generator.denoise(noise, model.text.embed([prompt]), config.steps):
            latents = estimate
        field = generator.field(generator.decode(latents)[0])
        surface = extract(field, config.grid_resolution)
        raw = surface.mesh()
        mesh, _ = drop_floaters(tidy(raw))
        mesh, _ = simplify(mesh, DEFAULT_FACES)
        return Generated(mesh, raw, lambda points: field.rgb(points.to(field.device)).cpu())

    return make


def sphere(radius: float = 0.5, grey: float = 0.5) -> Generated:
    """Return the baseline of an untrained model: a grey sphere around the origin."""
    axis = torch.linspace(-1, 1, 64)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    mesh = Mesh(*marching_cubes(nodes.norm(dim=-1) - radius))
    return Generated(mesh, mesh, lambda points: torch.full_like(points, grey))


def _count_floaters(mesh: Mesh) -> int:
    """Count the components other than the largest with more than `FLOATER` of the area."""
    areas = piece_areas(mesh)
    return int((areas[1:] > FLOATER * areas.sum()).sum())


def piece_areas(mesh: Mesh) -> np.ndarray:
    """Return the areas of the connected components of a mesh, the largest first: float64 [P]."""
    corners = mesh.faces.cpu().numpy()
    starts, ends = corners[:, :2].ravel(), corners[:, 1:].ravel()
    edges = coo_matrix((np.ones(len(starts), dtype=np.int8), (starts, ends)), (len(mesh.vertices),) * 2)
    label = connected_components(edges, directed=False)[1][corners[:, 0]]
    areas = face_normals(mesh.vertices.double().cpu(), mesh.faces.cpu()).norm(dim=1).numpy() / 2
    sums = np.bincount(label, areas)
    return np.sort(sums[sums > 0])[::-1]


def render_colors(generated: Generated, cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    """Render the coverage, bool [V, size, size], and unlit colours [V, size, size, 3], 0 for background."""
    covered, rgb, _ = _rasterize(generated, cameras, size, False)
    return covered, rgb


def render_surface(generated: Generated, cameras: Cameras, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Render as `render_colors`, and the interpolated vertex normals [V, size, size, 3]."""
    return _rasterize(generated, cameras, size, True)


def photograph(
    generated: Generated, cameras: Cameras, size: int, background: tuple[float, float, float]
) -> Tensor:
    """Render shaded images [V, 3, size, size] in [0, 1] on a plain background, with 2x supersampling."""
    covered, rgb, normal = _rasterize(generated, cameras, 2 * size, True)
    lit = shade(rgb, F.normalize(normal, dim=-1), cameras.c2w[:, None, None, :3, 2].float())
    lit = torch.where(covered[..., None], lit, lit.new_tensor(background))
    return F.avg_pool2d(lit.permute(0, 3, 1, 2), 2).clamp(0, 1)


def _rasterize(
    generated: Generated, cameras: Cameras, size: int, normals: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return coverage [V, H, W], colours [V, H, W, 3] and, if `normals`, smooth normals [V, H, W, 3]."""
    vertices, faces = generated.mesh.vertices, generated.mesh.faces
    raster = rasterize(vertices, faces, cameras, size, size)
    values = torch.cat((vertices, smooth_normals(vertices, faces)), 1) if normals else vertices
    seen = interpolate(values, faces, raster.triangle, raster.bary)  # [V, H, W, 3 or 6]
    rgb = torch.zeros(*raster.mask.shape, 3)
    rgb[raster.mask] = generated.rgb(seen[..., :3][raster.mask]).float().clamp(0, 1)
    return raster.mask, rgb, seen[..., 3:]
