"""Fit a triplane field to a given mesh: signed distances on a grid, colours on the surface."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.signed_distance import signed_distances
from triplaneturbo.mesh.surface_samples import SurfaceSamples, sample_surface
from triplaneturbo.mesh.voxels import centres
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField


@dataclass(frozen=True)
class FitOptions:
    """Options of the fit.

    Attributes:
        iterations: optimizer steps.
        voxels: resolution of the grid of signed distances along each side.
        nodes: random nodes along each axis that one step uses.
        samples: points on the surface.
        batch: points on the surface that one step uses.
        shell: largest offset of these points along their normals, in world units.
        width: distance over which the weight of a grid node falls to 1/e.
        plane_rate, mlp_rate: learning rates of the planes and of the MLPs.
    """

    iterations: int = 200
    voxels: int = 96
    nodes: int = 32
    samples: int = 100_000
    batch: int = 4096
    shell: float = 0.03
    width: float = 0.1
    plane_rate: float = 3e-2
    mlp_rate: float = 3e-3


def fit_field(
    mesh: Mesh, blank: TriplaneField, rng: torch.Generator, options: FitOptions | None = None
) -> TriplaneField:
    """Return a field whose surface and colours are those of a mesh.

    All MLPs are fitted, too, except that the grid offsets become 0: the SDF alone is the surface.

    Args:
        mesh: within [-1, 1]^3, with a texture, vertex colours or neither.
        blank: a field of the model, whose planes are replaced and whose MLPs are copied.
        rng: on the CPU, draws everything that is random.
        options: of the fit.

    Raises:
        UserError: the mesh has no surface, or encloses no volume.
    """
    options = options or FitOptions()
    samples = sample_surface(mesh, options.samples, rng)
    distances = signed_distances(mesh, samples, options.voxels).to(blank.device)
    fields = deepcopy(blank.fields).float().requires_grad_(True)
    with torch.no_grad():
        for p in fields.offset[-1].parameters():
            p.zero_()
    planes = 0.1 * torch.randn(blank.planes.shape, generator=rng)
    planes = planes.to(blank.device).requires_grad_()
    mlps = [*fields.sdf.parameters(), *fields.color.parameters()]
    optimizer = torch.optim.Adam(
        [{"params": [planes], "lr": options.plane_rate}, {"params": mlps, "lr": options.mlp_rate}],
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.iterations))
    )
    for _ in range(options.iterations):
        loss = _loss(fields, planes, distances, samples, rng, options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return TriplaneField(planes.detach(), fields.requires_grad_(False))


def _loss(
    fields: FieldDecoder, planes: Tensor, distances: Tensor, samples: SurfaceSamples, rng: torch.Generator,
    options: FitOptions,
) -> Tensor:  # fmt: skip
    """Return the loss of one step: distances at random nodes and beside the surface, colours on it."""
    device = planes.device
    chosen = torch.randperm(options.voxels, generator=rng)[: options.nodes].sort().values
    axis = torch.from_numpy(centres(options.voxels)).float()[chosen].to(device)
    chosen = chosen.to(device)
    wanted = distances[chosen][:, chosen][:, :, chosen]  # [R, R, R]
    error = (fields.sdf_lattice(planes[None], axis)[0] - wanted).abs()
    weight = (-wanted.abs() / options.width).exp() + 0.02
    grid = (weight * error).sum() / weight.sum()

    rows = torch.randint(len(samples.points), (options.batch,), generator=rng)
    aside = options.shell * torch.randn(options.batch, 1, generator=rng).clamp(-1, 1)
    # Half of the points lie on the surface; the others beside it, where their offset is the distance only
    # as long as no other part of the surface is nearer.
    aside[::2] = 0
    points = (samples.points[rows] + aside * samples.normals[rows]).clamp(-1, 1).to(device)
    sdf, _, rgb = fields(planes[None], points[None])
    on_surface = sdf[0, ::2].abs().mean()
    color = (rgb[0] - samples.colors[rows].to(device)).abs().mean()
    return grid + on_surface + color
