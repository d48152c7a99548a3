"""The representation protocol: one 3D asset, optimized through its renderings and exported as a mesh.

A member holds the parameters of a single asset. Refinement (`distill/ptd.py`) renders it, adds the gradients
of the teachers' scores, and steps an optimizer over its parameter groups; it knows nothing else about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.request import Request


@dataclass(frozen=True)
class RenderOutput:
    """Renderings of one asset.

    Attributes:
        renderings: by name, such as "volume" and "surface"; a teacher scores each one that has the fields it
            reads.
        regularization: weighted sum of the representation's own losses, a scalar.
    """

    renderings: dict[str, Renderings]
    regularization: Tensor


class Representation(Protocol):
    """A differentiable 3D representation of one asset.

    Attributes:
        device: device of the parameters.
    """

    device: torch.device

    def parameters(self) -> list[dict[str, Any]]:
        """Return parameter groups for an optimizer, with names and learning rates: {"name", "params", "lr"}.

        The groups and their order never change; the tensors in them may, in `after_step`.
        """
        ...

    def render(self, scenes: SceneBatch, rng: torch.Generator) -> RenderOutput:
        """Render the asset in every scene; differentiable in the parameters.

        Args:
            scenes: cameras and backgrounds of B scenes.
            rng: on the CPU, draws everything that is random.
        """
        ...

    def after_step(
        self, optimizer: torch.optim.Optimizer, iteration: int, progress: float, rng: torch.Generator
    ) -> None:
        """Constrain the parameters, or replace them as density control does, after an optimizer step.

        Args:
            optimizer: holds the groups of `parameters`; exchange replaced tensors in it.
            iteration: steps done, from 1.
            progress: the share of the run that is done, in (0, 1].
            rng: on the CPU, draws everything that is random.
        """
        ...

    def export(self, request: Request) -> Mesh:
        """Return the textured mesh.

        Args:
            request: its options of the mesh, from `resolution` to `watertight`, are used.

        Raises:
            EmptySurfaceError: there is no surface.
            UserError: an option is invalid.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return values by name that must match when a refinement is resumed, such as weights of losses."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes during optimization, as tensors and numbers in dicts."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`; parameters may become new tensors, so create optimizers afterwards."""
        ...
