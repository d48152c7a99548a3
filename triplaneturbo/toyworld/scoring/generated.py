"""What is scored: a surface with its colours, a model's, the truth's or a sphere's; and its pictures."""

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

FLOATER = 0.001  # share of the surface's area above which a piece beside the largest is a floater


@dataclass(frozen=True)
class Generated:
    """What a prompt became.

    Attributes:
        mesh: vertices and faces as the user gets them.
        raw: the surface before anything was dropped from it.
        rgb: sRGB colours [N, 3] at points [N, 3] of the surface.
    """

    mesh: Mesh
    raw: Mesh
    rgb: Callable[[Tensor], Tensor]

    @property
    def floaters(self) -> int:
        """Pieces of the raw surface beside the largest that hold more than `FLOATER` of its area."""
        return _count_floaters(self.raw)

    @property
    def floaters_left(self) -> int:
        """The same of the mesh that the user gets."""
        return _count_floaters(self.mesh)


def make_generate(model: Model) -> Callable[[str, int], Generated]:
    """What a model makes of a prompt and a seed, as `Pipeline` does it, up to the surface that is unwrapped.

    Colours are asked of the field itself, of which a texture would be a copy.
    """

    @torch.no_grad()
    def make(prompt: str, seed: int) -> Generated:
        """Raises EmptySurfaceError where there is no surface."""
        generator, config = model.generator, model.config
        noise = generator.draw_latents(1, torch.Generator().manual_seed(seed))  # [1, 6, 4, h, h]
        for estimate in generator.denoise(noise, model.text.embed([prompt]), config.steps):
            latents = estimate
        field = generator.field(generator.decode(latents)[0])
        surface = extract(field, config.grid_resolution)
        raw = Mesh(surface.vertices.float().cpu(), surface.faces.cpu())
        mesh, _ = drop_floaters(tidy(raw))
        mesh, _ = simplify(mesh, DEFAULT_FACES)
        return Generated(mesh, raw, lambda points: field.rgb(points.to(field.device)).cpu())

    return make


def sphere(radius: float = 0.5, grey: float = 0.5) -> Generated:
    """What a model that has learned nothing amounts to: a grey sphere about the origin."""
    axis = torch.linspace(-1, 1, 64)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    mesh = Mesh(*marching_cubes(nodes.norm(dim=-1) - radius))
    return Generated(mesh, mesh, lambda points: torch.full_like(points, grey))


def _count_floaters(mesh: Mesh) -> int:
    areas = piece_areas(mesh)
    return int((areas[1:] > FLOATER * areas.sum()).sum())


def piece_areas(mesh: Mesh) -> np.ndarray:
    """Areas of the connected pieces of a mesh, the largest first: float64 [P]."""
    corners = mesh.faces.cpu().numpy()
    starts, ends = corners[:, :2].ravel(), corners[:, 1:].ravel()
    edges = coo_matrix((np.ones(len(starts), dtype=np.int8), (starts, ends)), (len(mesh.vertices),) * 2)
    label = connected_components(edges, directed=False)[1][corners[:, 0]]
    areas = face_normals(mesh.vertices.double().cpu(), mesh.faces.cpu()).norm(dim=1).numpy() / 2
    sums = np.bincount(label, areas)
    return np.sort(sums[sums > 0])[::-1]


def render_colors(generated: Generated, cameras: Cameras, size: int) -> tuple[Tensor, Tensor]:
    """Where V cameras see it, bool [V, size, size], and its unlit colours [V, size, size, 3], 0 elsewhere."""
    covered, rgb, _ = _rasterize(generated, cameras, size, False)
    return covered, rgb


def photograph(
    generated: Generated, cameras: Cameras, size: int, background: tuple[float, float, float]
) -> Tensor:
    """Lightly shaded pictures [V, 3, size, size] in [0, 1] on a background; drawn at twice the size."""
    covered, rgb, normal = _rasterize(generated, cameras, 2 * size, True)
    lit = shade(rgb, F.normalize(normal, dim=-1), cameras.c2w[:, None, None, :3, 2].float())
    lit = torch.where(covered[..., None], lit, lit.new_tensor(background))
    return F.avg_pool2d(lit.permute(0, 3, 1, 2), 2).clamp(0, 1)


def _rasterize(
    generated: Generated, cameras: Cameras, size: int, normals: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage [V, H, W], colours [V, H, W, 3] and, if asked for, smooth normals [V, H, W, 3]."""
    vertices, faces = generated.mesh.vertices, generated.mesh.faces
    raster = rasterize(vertices, faces, cameras, size, size)
    values = torch.cat((vertices, smooth_normals(vertices, faces)), 1) if normals else vertices
    seen = interpolate(values, faces, raster.triangle, raster.bary)  # [V, H, W, 3 or 6]
    rgb = torch.zeros(*raster.mask.shape, 3)
    rgb[raster.mask] = generated.rgb(seen[..., :3][raster.mask]).float().clamp(0, 1)
    return raster.mask, rgb, seen[..., 3:]
