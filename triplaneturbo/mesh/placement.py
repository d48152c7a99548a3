"""Placement of a mesh in a file: size, unit, up axis and origin."""

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
"""Metres per unit, for each unit that coordinates can be written in."""
AUTO = "auto"  # the unit that the format's readers expect
UNIT_CHOICES = (AUTO, *UNITS)


@dataclass(frozen=True)
class Placement:
    """Size, unit, up axis and origin of a file. By default one unit of model space is one metre, y up.

    Attributes:
        size: length of the longest side of the bounding box, 0.001 to 1000 metres; None: one unit of model
            space is one metre, so that the object is about two metres long.
        up: "y" (front +z, the convention of glTF) or "z" (front -y, the convention of Blender and of programs
            for 3D printing). Ignored for GLB, whose files have y up, and for 3MF, whose files have z up.
        unit: unit of the coordinates in the file: "m", "cm", "mm", "in", or "auto": millimetres for STL and
            3MF, as slicers expect, metres for other formats. It changes the numbers, not the object's size.
            Ignored for GLB: glTF requires metres. USDZ declares its unit, so that programs scale it.
        pivot: position of the origin. "model": the origin of model space, about the middle of the object;
            "centre": the centre of the bounding box; "ground": the centre of the bounding box's lower side,
            so that the object stands at height 0.
    """

    size: float | None = None
    up: str = "y"
    pivot: str = "model"
    unit: str = AUTO

    def checked(self) -> Placement:
        """Return the placement with its size as a float.

        Raises:
            UserError: a value is invalid.
        """
        if self.up not in UPS:
            raise UserError(f'Invalid up axis {shown(self.up)}; choose "y" or "z".')
        if self.pivot not in PIVOTS:
            raise UserError(f"Invalid pivot {shown(self.pivot)}; choose one of {', '.join(PIVOTS)}.")
        if self.unit not in UNIT_CHOICES:
            raise UserError(f"Invalid unit {shown(self.unit)}; choose one of {', '.join(UNIT_CHOICES)}.")
        if self.size is None:
            return self
        number = isinstance(self.size, (int, float)) and not isinstance(self.size, bool)
        if not number or not SIZES[0] <= self.size <= SIZES[1]:
            raise UserError(
                f"Invalid size {shown(self.size)}; give the length of the longest side in metres,"
                f" {SIZES[0]:g} to {SIZES[1]:g}."
            )
        return replace(self, size=float(self.size))

    def scale(self, vertices: Tensor) -> float:
        """Return the metres per unit of model space for an object with these vertices [V, 3].

        Raises:
            UserError: a size is given, but the object has no extent.
        """
        if self.size is None:
            return 1.0
        longest = float((vertices.amax(0) - vertices.amin(0)).max())
        if not longest > 0 or not math.isfinite(self.size / longest):
            raise UserError("The mesh is a single point and cannot be scaled to a size; try another seed.")
        return self.size / longest

    def place(self, vertices: Tensor, unit: str = "m", reference_vertices: Tensor | None = None) -> Tensor:
        """Move and scale vertices [V, 3] of model space to a unit, a key of UNITS; the axes do not change.

        Args:
            vertices: positions of the object, or of a version of it.
            unit: a key of UNITS.
            reference_vertices: positions [W, 3] of the object, from which its size and its origin are taken;
                None: `vertices`.

        Raises:
            UserError: a size is given, but the object has no extent.
        """
        kind, vertices = vertices.dtype, vertices.double()
        reference = vertices if reference_vertices is None else reference_vertices.double()
        scale = self.scale(reference) / UNITS[unit]
        if self.pivot != "model":
            low, high = reference.amin(0), reference.amax(0)
            origin = (low + high) / 2
            if self.pivot == "ground":
                origin[2] = low[2]
            vertices = vertices - origin
        return (vertices * scale).to(kind)


AS_MODELLED = Placement()
