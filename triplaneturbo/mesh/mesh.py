"""Triangle mesh: the data class that all mesh stages read and return, and its normals."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in model space: right-handed, z up, front toward +x, the object within [-1, 1]^3.

    Attributes:
        vertices: positions, float32 [V, 3].
        faces: vertex indices, int64 [F, 3], counter-clockwise seen from outside.
        normals: unit vertex normals [V, 3], or None.
        colors: sRGB vertex colours in [0, 1] [V, 3], or None.
        uv: texture coordinates in [0, 1] [V, 2] in the convention of glTF: (0, 0) is the image's top left
            corner and v grows downward; or None. A vertex on a seam is duplicated, once per chart.
        tangents: unit tangent and handedness (xyz, w = +-1) [V, 4] in the convention of glTF (the bitangent
            is w * cross(normal, tangent)), or None.
        texture: base colour, sRGB uint8 [H, W, 3], row 0 on top, or None.
        normal_map: tangent-space normals, uint8 [H, W, 3] (0.5 + 0.5 n, green along the bitangent), or None.
        lods: coarser versions in order, which share the texture and the normal map.
        metadata: how a `Pipeline` generated the mesh, for `save`; None: unknown. `replace` keeps it;
            functions that build a new mesh, such as `simplify`, do not.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None = None
    colors: Tensor | None = None
    uv: Tensor | None = None
    tangents: Tensor | None = None
    texture: np.ndarray | None = None
    normal_map: np.ndarray | None = None
    lods: tuple[Mesh, ...] = ()
    metadata: GenerationMetadata | None = None

    def replace(self, **changes: object) -> Mesh:
        """Return a copy with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        unit: str = "auto",
        size: float | None = None,
        up: str = "y",
        pivot: str = "model",
        metadata: bool = True,
    ) -> Path:
        """Write the mesh to a file atomically and return its path. The suffix determines the format.

        Args:
            path: ends in .glb, .zip (an OBJ with its material and texture), .ply, .stl, .3mf or .usdz.
            unit, size, up, pivot: see `triplaneturbo.Placement`.
            metadata: whether the file contains the prompt, seed, settings and model, if they are known and
                the format can store them.

        Raises:
            UserError: the suffix or an option is unknown, the mesh is empty, or the file cannot be written.
        """
        from triplaneturbo.mesh.io import Placement, save  # the writers import this module

        placement = Placement(size=size, up=up, pivot=pivot, unit=unit)
        known = self.metadata if metadata else None
        stored = None if known is None else replace(known, placement=placement)
        return save(self, path, placement=placement, metadata=stored)

    @property
    def bounds(self) -> Tensor:
        """Lowest and highest corner of the bounding box [2, 3]."""
        return torch.stack((self.vertices.amin(0), self.vertices.amax(0)))


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return face normals [F, 3] whose length is twice the face's area; zero for a degenerate face."""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return area-weighted unit vertex normals [V, 3]; +z where a vertex has no face with an area."""
    by_face = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], by_face)
    length = total.norm(dim=1, keepdim=True)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=vertices.dtype, device=vertices.device)
    return torch.where(length > 1e-20, total / length.clamp_min(1e-20), up)
