"""A ball of one colour, for the test of the registry: a representation in one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.finish import finished_mesh
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.base import RenderOutput
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request


class Ball:
    """A ball around the origin with a soft silhouette."""

    def __init__(self, size: int) -> None:
        self.size, self.device = size, torch.device("cpu")
        self.radius, self.color = torch.tensor(0.3).requires_grad_(), torch.full((3,), 0.5).requires_grad_()

    @classmethod
    def from_field(cls, field: TriplaneField, size: int, rng: torch.Generator, request: Request) -> Ball:
        return cls(size)

    def parameters(self) -> list[dict[str, Any]]:
        return [
            {"name": "radius", "params": [self.radius], "lr": 2e-2},
            {"name": "color", "params": [self.color], "lr": 5e-2},
        ]

    def render(self, scenes: SceneBatch, rng: torch.Generator) -> RenderOutput:
        origins, directions = scenes.cameras.rays(self.size, self.size)
        along = -(origins * directions).sum(-1, keepdim=True)
        opacity = torch.sigmoid(20 * (self.radius - (origins + along * directions).norm(dim=-1)))
        opacity = opacity.unflatten(0, (-1, scenes.views))  # [B, V, H, W]
        ground = scenes.background[:, None, None, None]
        rgb = ground + opacity[..., None] * (self.color - ground)
        return RenderOutput({"soft": Renderings(rgb, opacity)}, 0 * self.radius)

    def after_step(
        self, optimizer: torch.optim.Optimizer, iteration: int, progress: float, rng: torch.Generator
    ) -> None:
        with torch.no_grad():
            self.color.clamp_(0, 1)

    def export(self, request: Request) -> Mesh:
        axis = torch.linspace(-1, 1, 32)
        nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
        mesh = Mesh(*marching_cubes(self.sdf(nodes)))
        return finished_mesh(mesh, self, request, 32)

    def sdf(self, points: Tensor) -> Tensor:
        return points.norm(dim=-1) - self.radius.detach()

    def rgb(self, points: Tensor) -> Tensor:
        return self.color.detach().expand(len(points), 3)

    def fingerprint(self) -> dict[str, Any]:
        """See `Representation`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"radius": self.radius.detach(), "color": self.color.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.radius.copy_(state["radius"])
            self.color.copy_(state["color"])
