"""Interface of the rasterizer backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from triplaneturbo.render.cameras import Cameras


class Fragments(NamedTuple):
    """The rasterization of a mesh in V views.

    Attributes:
        triangle: face index, int64 [V, H, W], -1 in the background. Row 0 is the top row.
        bary: perspective-correct barycentrics at pixel centres [V, H, W, 3], 0 in the background;
            differentiable in the vertices (for a fixed triangle) if they require gradients.
        depth: view depth [V, H, W], 0 in the background; differentiable like `bary`.
    """

    triangle: Tensor
    bary: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Foreground mask, bool [V, H, W]."""
        return self.triangle >= 0


@dataclass(frozen=True)
class Rasterizer:
    """One rasterizer backend.

    Attributes:
        name: of the backend, such as "numba".
        supports: return whether the backend can rasterize tensors on a device here.
        rasterize: (vertices, faces, cameras, height, width) -> fragments, as in `rasterizer.rasterize`; it is
            called without gradients.
    """

    name: str
    supports: Callable[[torch.device], bool]
    rasterize: Callable[[Tensor, Tensor, Cameras, int, int], Fragments]
