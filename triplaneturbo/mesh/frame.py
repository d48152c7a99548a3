"""The frame of a given mesh: from its own units and position to the cube that models work in, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh

HALF_EXTENT = 0.9
"""Half the largest side of a fitted mesh: about that of generated objects, which lie within [-1, 1]^3."""
_ENOUGH = 0.5  # of a mesh within [-1, 1]^3 that keeps its place


@dataclass(frozen=True)
class Frame:
    """Position and size of a mesh.

    Attributes:
        centre: centre of the bounding box [3], float64.
        scale: units of the mesh per unit of model space.
    """

    centre: Tensor
    scale: float

    @classmethod
    def of(cls, mesh: Mesh) -> Frame:
        """Return the frame of a mesh: model space itself for one that is placed as generated objects are.

        Raises:
            UserError: all positions are equal, or some are not finite.
        """
        vertices = mesh.vertices.detach().double()
        low, high = vertices.amin(0), vertices.amax(0)
        extent = float((high - low).max())
        if not 0 < extent < float("inf"):
            raise UserError(
                "The mesh has no extent, or positions that are not finite numbers; export it again."
            )
        if float(vertices.abs().max()) <= 1 and extent >= 2 * _ENOUGH:
            return cls(torch.zeros_like(low), 1.0)
        return cls((low + high) / 2, extent / (2 * HALF_EXTENT))

    def fit(self, vertices: Tensor) -> Tensor:
        """Convert positions of the mesh [N, 3] to model space."""
        return ((vertices.double() - self.centre.to(vertices.device)) / self.scale).float()

    def restore(self, vertices: Tensor) -> Tensor:
        """Convert positions in model space [N, 3] to those of the mesh; the inverse of `fit`."""
        return (vertices.double() * self.scale + self.centre.to(vertices.device)).float()

    def restored(self, mesh: Mesh) -> Mesh:
        """Return a mesh in model space, and its levels of detail, in the frame of the given mesh."""
        lods = tuple(self.restored(level) for level in mesh.lods)
        return mesh.replace(vertices=self.restore(mesh.vertices), lods=lods)
