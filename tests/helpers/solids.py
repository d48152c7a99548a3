"""Surfaces of analytic solids, for the tests of unwrapping: marching cubes on their signed distances."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.mesh import Mesh


def sphere(p: Tensor) -> Tensor:
    return p.norm(dim=-1) - 0.8


def torus(p: Tensor) -> Tensor:
    ring = p[..., :2].norm(dim=-1) - 0.6
    return torch.hypot(ring, p[..., 2]) - 0.25


def box(
    p: Tensor, centre: tuple[float, ...] = (0, 0, 0), half: tuple[float, ...] = (0.7, 0.7, 0.7)
) -> Tensor:
    q = (p - torch.tensor(centre)).abs() - torch.tensor(half)
    return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)


def plate(p: Tensor) -> Tensor:
    return box(p, half=(0.8, 0.8, 0.02))


def chair(p: Tensor) -> Tensor:
    parts = [box(p, half=(0.5, 0.5, 0.06)), box(p, (-0.45, 0, 0.45), (0.05, 0.5, 0.45))]
    parts += [box(p, (x, y, -0.45), (0.04, 0.04, 0.45)) for x in (-0.45, 0.45) for y in (-0.45, 0.45)]
    return torch.stack(parts).amin(0)


def blob(p: Tensor) -> Tensor:
    """A ball with waves in all directions: folds, bays, overhangs."""
    draw = torch.Generator().manual_seed(3)
    result = p.norm(dim=-1) - 0.6
    for i in range(12):
        wave = torch.randn(3, generator=draw) * (4 + i)
        result = result + 0.12 / (1 + 0.3 * i) * (p @ wave + 6 * torch.rand(1, generator=draw)).sin()
    return result


def rough(p: Tensor) -> Tensor:
    """A ball under noise that has no scale: what an untrained field looks like, or worse."""
    return p.norm(dim=-1) - 0.7 + 0.02 * torch.randn(p.shape[:-1], generator=torch.Generator().manual_seed(4))


def ramp(p: Tensor) -> Tensor:
    """A winding ramp of two and a half turns: seen from above it lies on itself."""
    angle = torch.atan2(p[..., 1], p[..., 0])
    radius = p[..., :2].norm(dim=-1)
    turns = torch.arange(-2, 3)
    height = 0.5 * (angle[..., None] / (2 * torch.pi) + turns)  # [..., 5]
    slab = (p[..., 2:] - height).abs().amin(-1) - 0.06
    bound = torch.maximum((radius - 0.55).abs() - 0.3, p[..., 2].abs() - 0.62)
    return torch.maximum(slab, bound)


def surface(solid: Callable[[Tensor], Tensor], resolution: int) -> Mesh:
    """The solid's surface on a grid of `resolution` nodes a side."""
    axis = torch.linspace(-1, 1, resolution)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return Mesh(*marching_cubes(solid(grid)))
