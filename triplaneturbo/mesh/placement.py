"""How a mesh stands in a file: its size, the unit of its numbers, its up axis and its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

if TYPE_CHECKING:
    from torch import Tensor

SIZES = (0.001, 1000.0)
UPS = ("y", "z")
PIVOTS = ("model", "centre", "ground")
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
"""Metres in each unit that the numbers of a file can be in."""
AUTO = "auto"  # the unit that the format's readers expect
UNIT_CHOICES = (AUTO, *UNITS)


@dataclass(frozen=True)
class Placement:
    """Size, unit, up axis and origin of a file. By default a unit of model space is a metre and y is up.

    Attributes:
        size: length of the longest side of the bounding box, 0.001 to 1000 metres; None: a unit of model
            space is a metre, so that the object is about two metres long.
        up: "y" (front +z, as glTF has it) or "z" (front -y, as programs for 3D printing and Blender have it).
            A GLB has y up whatever is said here: glTF demands it, and programs turn it as they need.
        unit: of the numbers in the file: "m", "cm", "mm", "in", or "auto": millimetres in an STL, which
            slicers read so, metres elsewhere. It changes the numbers, not the size of the object. A GLB is in
            metres whatever is said here: glTF demands it. A USDZ names its unit, so that programs scale it.
        pivot: where the origin is. "model": where the model has it, about the middle; "centre": the centre of
            the bounding box; "ground": the centre of its footprint, so that the object stands at height 0.
    """

    size: float | None = None
    up: str = "y"
    pivot: str = "model"
    unit: str = AUTO

    def checked(self) -> Placement:
        """The same placement, the size as a float.

        Raises:
            UserError: a value cannot be.
        """
        if self.up not in UPS:
            raise UserError(f'A file has "y" or "z" up, not {shown(self.up)}; choose one of the two.')
        if self.pivot not in PIVOTS:
            raise UserError(f"The pivot should be model, centre or ground, not {shown(self.pivot)}.")
        if self.unit not in UNIT_CHOICES:
            raise UserError(
                f"The unit should be {', '.join(UNIT_CHOICES)}, not {shown(self.unit)}; choose one of them."
            )
        if self.size is None:
            return self
        number = isinstance(self.size, (int, float)) and not isinstance(self.size, bool)
        if not number or not SIZES[0] <= self.size <= SIZES[1]:
            raise UserError(
                f"The size should be {SIZES[0]:g} to {SIZES[1]:g} metres, not {shown(self.size)}; it is the"
                " length of the longest side."
            )
        return replace(self, size=float(self.size))

    def scale(self, vertices: Tensor) -> float:
        """Metres per unit of model space for an object with these vertices [V, 3].

        Raises:
            UserError: the object has no extent, so that it cannot be given a size.
        """
        if self.size is None:
            return 1.0
        longest = float((vertices.amax(0) - vertices.amin(0)).max())
        if not longest > 0 or not math.isfinite(self.size / longest):
            raise UserError("The mesh is a single point, so it cannot be given a size; try another seed.")
        return self.size / longest

    def place(self, vertices: Tensor, unit: str = "m") -> Tensor:
        """Move and scale vertices [V, 3] of model space into a unit, a key of UNITS; the axes stay.

        Raises:
            UserError: the object has no extent, so that it cannot be given a size.
        """
        kind, vertices = vertices.dtype, vertices.double()
        scale = self.scale(vertices) / UNITS[unit]
        if self.pivot != "model":
            low, high = vertices.amin(0), vertices.amax(0)
            origin = (low + high) / 2
            if self.pivot == "ground":
                origin[2] = low[2]
            vertices = vertices - origin
        return (vertices * scale).to(kind)


AS_MODELLED = Placement()
