"""Random points on a mesh's surface with normals and colours, to start 3D Gaussians from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.render.colors import sample

_GREY = 0.5


@dataclass(frozen=True)
class SurfaceSamples:
    """N points on a surface.

    Attributes:
        points: [N, 3].
        normals: unit normals [N, 3].
        colors: sRGB in [0, 1] [N, 3]: of the texture, else of the vertices, else grey.
        spacing: side of the square of surface that one point stands for, in world units.
    """

    points: Tensor
    normals: Tensor
    colors: Tensor
    spacing: float


def sample_surface(mesh: Mesh, count: int, generator: torch.Generator) -> SurfaceSamples:
    """Draw points from a mesh's surface, with the same density everywhere.

    The surface is divided into `count` parts of equal area, in the order of the faces, with one point in
    each; that leaves fewer gaps than independent points.

    Args:
        mesh: its tensors may be on any device; the samples are on the CPU.
        count: number of points, at least 1.
        generator: on the CPU.

    Raises:
        UserError: the surface has no area, or positions are not finite.
    """
    vertices, faces = mesh.vertices.detach().cpu().double(), mesh.faces.cpu()
    by_face = face_normals(vertices, faces)
    areas = by_face.norm(dim=1) / 2
    ends = areas.cumsum(0)
    total = float(ends[-1]) if len(ends) else 0.0
    if not 0 < total < float("inf"):
        raise UserError("The mesh has no surface with a finite area; check that it has faces.")
    u, v, w = torch.rand(3, count, generator=generator, dtype=torch.float64)
    place = (torch.arange(count) + u) * (total / count)
    face = torch.searchsorted(ends, place, right=True).clamp_max(len(faces) - 1)
    # Rounding may end on a face without area at the end of the list.
    face = torch.where(areas[face] > 0, face, areas.argmax())
    root = v.sqrt()
    weights = torch.stack((1 - root, root * (1 - w), root * w), dim=-1)  # [N, 3] uniform barycentrics

    def interpolated(attribute: Tensor) -> Tensor:
        corners = attribute.detach().cpu().double()[faces[face]]  # [N, 3, C]
        return (corners * weights[..., None]).sum(1)

    flat = by_face[face] / by_face[face].norm(dim=1, keepdim=True)
    normals = flat if mesh.normals is None else interpolated(mesh.normals)
    length = normals.norm(dim=1, keepdim=True)
    normals = torch.where(length > 1e-6, normals / length.clamp_min(1e-6), flat)
    if mesh.texture is not None and mesh.uv is not None:
        image = torch.from_numpy(mesh.texture.astype(np.float32)) / 255
        colors = sample(image, interpolated(mesh.uv).float())
    elif mesh.colors is not None:
        colors = interpolated(mesh.colors).float()
    else:
        colors = torch.full((count, 3), _GREY)
    points = interpolated(vertices)
    return SurfaceSamples(points.float(), normals.float(), colors.clamp(0, 1), (total / count) ** 0.5)
