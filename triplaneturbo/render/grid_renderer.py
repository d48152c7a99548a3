"""All views of an sdf on a regular lattice: the quick volume renderer, for training on a CPU.

A ray is cut by edges, one where it enters [-1, 1]^3, then one at every step. With P = sigmoid(sharpness *
sdf) at the edges, what shines through an interval is min(1, P_after / P_before) (the discrete form of NeuS),
and the space before the cube counts as empty, P = 1. These ratios telescope: what gets as far as an edge is P
itself, however coarse the steps, until the sdf first rises again. A ray that passes the surface with f as its
least sdf has opacity 1 - P(f), hence a gradient at the place where it passes.

On a CPU the compiled loops of march.py do this; anywhere else, or if asked, plain torch does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from triplaneturbo.render import grid_gradients, neus_kernels
from triplaneturbo.utils.random_streams import RandomStreams, uniform

REACH = 12.0  # sharpness * sdf from which on P counts as 1 (it is 1 - 6e-6)
RAYS = 2**14  # at a time in plain torch
CUT = 1e-5  # a ray ends where less than this shines through

Backend = Literal["auto", "numba", "torch"]


@dataclass(frozen=True)
class GridRendering:
    """What rays see of an sdf on a lattice; all of it is differentiable in the sdf.

    Attributes:
        opacity: share of the light that is stopped [B, N], 0 to 1.
        depth: distance along the ray times opacity, summed over the intervals (not normalised) [B, N].
        normal: unit normals summed likewise [B, N, 3]: as long as the opacity where the surface is flat.
    """

    opacity: Tensor
    depth: Tensor
    normal: Tensor

    @property
    def distance(self) -> Tensor:
        """Expected distance along the ray [B, N]: depth / opacity, and less than that below 1 % opacity."""
        return self.depth / self.opacity.clamp_min(0.01)


def render_grid(
    sdf: Tensor,
    origins: Tensor,
    directions: Tensor,
    sharpness: float,
    samples: int = 48,
    jitter: RandomStreams | None = None,
    backend: Backend = "auto",
) -> GridRendering:
    """Render rays through an sdf on a lattice.

    Normals are central differences of the sdf at the nodes, made unit there and interpolated between: these
    are smoother and nearer to the truth than the gradient of the trilinear interpolation.

    Args:
        sdf: at the nodes of a regular grid over [-1, 1]^3 [B, R, R, R], indexed [x, y, z], R >= 2.
        origins: eye points [B, N, 3], anywhere.
        directions: unit vectors [B, N, 3]; gradients flow neither to these nor to the origins.
        sharpness: the larger, the harder the surface; opacity goes from 10 to 90 % over 4.4 / sharpness.
        samples: steps along each side of the cube: a step is 2 / samples.
        jitter: draws where in the first step each ray's edges begin; without, they begin in its middle.
        backend: "numba" (one thread, float32, on the CPU), "torch" (anything), or "auto": numba if it can.
    """
    check_grid(sdf)
    if origins.shape != directions.shape or origins.ndim != 3 or origins.shape[::2] != (len(sdf), 3):
        raise ValueError(
            f"origins and directions should be of shape [{len(sdf)}, N, 3], not {tuple(origins.shape)} "
            f"and {tuple(directions.shape)}"
        )
    if samples < 1 or sharpness <= 0:
        raise ValueError(f"samples and sharpness should be positive, not {samples} and {sharpness}")
    if sdf.dtype != torch.float64:
        sdf = sdf.float()
    origins, directions = origins.detach().to(sdf), directions.detach().to(sdf)
    shift = torch.full(origins.shape[:2], 0.5)
    if jitter is not None:
        shift = uniform(jitter, origins.shape[:2])
    shift = shift.to(sdf)
    render = _March.apply if _chosen(backend, sdf) == "numba" else _march_pieces
    out = render(sdf, origins, directions, shift, 2 / samples, sharpness)  # [B, N, 5]
    return GridRendering(out[..., 0], out[..., 1], out[..., 2:])


def _chosen(backend: Backend, sdf: Tensor) -> str:
    """Which backend serves an sdf."""
    if backend == "auto":
        return "numba" if sdf.device.type == "cpu" and sdf.dtype == torch.float32 else "torch"
    return backend


def check_grid(sdf: Tensor) -> None:
    """Raise ValueError unless sdf is of shape [B, R, R, R] with R >= 2."""
    if sdf.ndim != 4 or len(set(sdf.shape[1:])) != 1 or sdf.shape[-1] < 2:
        raise ValueError(f"sdf should be of shape [B, R, R, R] with R >= 2, not {tuple(sdf.shape)}")


def gradient(sdf: Tensor) -> Tensor:
    """Gradient of sdf [B, R, R, R] at its nodes, in world units [B, R, R, R, 3].

    Central differences; one-sided ones on the cube's sides.
    """
    slopes = torch.gradient(sdf, spacing=2 / (sdf.shape[-1] - 1), dim=(1, 2, 3))
    return torch.stack(slopes, dim=-1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] made unit; those much shorter than 0.01 stay short, and zero has a finite gradient."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + float(grid_gradients.SOFT))


def eikonal(sdf: Tensor, backend: Backend = "auto") -> Tensor:
    """How far sdf [B, R, R, R] is from a distance: mean of (|gradient| - 1)^2 over its nodes, [B].

    `backend` is as in `render_grid`.
    """
    check_grid(sdf)
    if _chosen(backend, sdf) == "numba":
        return _Eikonal.apply(sdf)
    length = (gradient(sdf).square().sum(-1) + float(grid_gradients.TINY)).sqrt()  # [B, R, R, R]
    return (length - 1).square().mean((1, 2, 3))


def trilinear(grid: Tensor, points: Tensor) -> Tensor:
    """Interpolate a lattice over [-1, 1]^3, beyond which its outermost values hold.

    Args:
        grid: [B, R, R, R] or [B, R, R, R, C], indexed [x, y, z].
        points: [B, ..., 3].

    Returns:
        values [B, ...] or [B, ..., C]; differentiable in both.
    """
    channels = grid[:, None] if grid.ndim == 4 else grid.movedim(-1, 1)  # [B, C, R, R, R]
    # grid_sample calls the last axis of the grid x.
    at = points.flip(-1).flatten(1, -2)[:, :, None, None]  # [B, M, 1, 1, 3]
    values = F.grid_sample(channels, at, mode="bilinear", padding_mode="border", align_corners=True)
    values = values[..., 0, 0].movedim(1, -1).unflatten(1, points.shape[1:-1])  # [B, ..., C]
    return values[..., 0] if grid.ndim == 4 else values


def span(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays [..., 3] enter and leave [-1, 1]^3, [...] each; both are 0 if a ray misses it."""
    # A ray along a side's plane meets it at plus or minus infinity, or nowhere (nan: no limit, if inside).
    one, other = (-1 - origins) / directions, (1 - origins) / directions
    near, far = torch.minimum(one, other), torch.maximum(one, other)
    enter = near.nan_to_num(-math.inf, math.inf, -math.inf).amax(-1).clamp_min(0)
    leave = far.nan_to_num(math.inf, math.inf, -math.inf).amin(-1)
    hit = enter < leave
    return enter.where(hit, 0), leave.where(hit, 0)


def _march_pieces(
    sdf: Tensor, origins: Tensor, directions: Tensor, shift: Tensor, step: float, sharpness: float
) -> Tensor:
    """Opacity, depth and normal [B, N, 5] in plain torch.

    Many rays go in pieces, computed again in the backward pass: a view of 128^2 rays keeps 0.2 GB.
    """
    slopes = unit(gradient(sdf))
    if origins.shape[1] <= RAYS:
        return _march(sdf, slopes, origins, directions, shift, step, sharpness)
    pieces = zip(*(part.split(RAYS, 1) for part in (origins, directions, shift)), strict=True)
    seen = [checkpoint(_march, sdf, slopes, *piece, step, sharpness, use_reentrant=False) for piece in pieces]
    return torch.cat(seen, 1)


def _march(
    sdf: Tensor,
    slopes: Tensor,
    origins: Tensor,
    directions: Tensor,
    shift: Tensor,
    step: float,
    sharpness: float,
) -> Tensor:
    """The same of some rays, with normals at the nodes: every ray has edges enough for the longest."""
    enter, leave = span(origins, directions)  # [B, N]
    count = math.ceil(2 * math.sqrt(3) / step) + 1
    along = torch.arange(count, device=sdf.device, dtype=sdf.dtype) + shift[..., None]  # [B, N, E - 1]
    edges = torch.minimum(enter[..., None] + along * step, leave[..., None])
    edges = torch.cat((enter[..., None], edges), dim=-1)  # [B, N, E]
    at = origins[..., None, :] + edges[..., None] * directions[..., None, :]  # [B, N, E, 3]
    solid = F.logsigmoid(sharpness * trilinear(sdf, at))  # log P
    before = F.pad(solid[..., :-1], (1, 0))  # P = 1 in front of the cube
    passed = (solid - before).clamp_max(0).cumsum(-1).exp()  # [B, N, E]
    hit = (enter < leave)[..., None]
    weights = (F.pad(passed[..., :-1], (1, 0), value=1.0) - passed) * hit
    middle = (edges + torch.cat((edges[..., :1], edges[..., :-1]), dim=-1)) / 2
    at = origins[..., None, :] + middle[..., None] * directions[..., None, :]
    normal = (weights[..., None] * trilinear(slopes, at)).sum(-2)
    return torch.cat((weights.sum(-1)[..., None], (weights * middle).sum(-1)[..., None], normal), dim=-1)


class _March(torch.autograd.Function):
    """The same by the compiled loops; on the CPU, in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        sdf: Tensor,
        origins: Tensor,
        directions: Tensor,
        shift: Tensor,
        step: float,
        sharpness: float,
    ) -> Tensor:
        sdf = sdf.detach().contiguous()
        normals = sdf.new_empty(*sdf.shape, 3)
        grid_gradients.forward(sdf.numpy(), normals.numpy())
        blocks = torch.from_numpy(neus_kernels.block_minima(sdf.numpy()))
        arrays = [sdf, normals, blocks, origins.contiguous(), directions.contiguous(), shift.contiguous()]
        numbers = [np.float32(number) for number in (step, sharpness, REACH / sharpness, CUT)]
        out = sdf.new_empty(*origins.shape[:2], 5)
        neus_kernels.forward(*(part.numpy() for part in arrays), *numbers, out.numpy())
        ctx.save_for_backward(*arrays, out)
        ctx.numbers = numbers
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *arrays, out = (part.numpy() for part in ctx.saved_tensors)
        sdf, normals = arrays[:2]
        to_sdf, to_normals = np.zeros_like(sdf), np.zeros_like(normals)
        neus_kernels.backward(*arrays, *ctx.numbers, out, grads[0].contiguous().numpy(), to_sdf, to_normals)
        grid_gradients.backward(sdf, to_normals, to_sdf)
        return torch.from_numpy(to_sdf), None, None, None, None, None


class _Eikonal(torch.autograd.Function):
    """The same by the compiled loop, which makes value and gradient at once; on the CPU, in float32."""

    @staticmethod
    def forward(ctx: Any, sdf: Tensor) -> Tensor:
        slopes, out = torch.zeros_like(sdf), sdf.new_empty(len(sdf))
        grid_gradients.eikonal(sdf.detach().contiguous().numpy(), out.numpy(), slopes.numpy())
        ctx.save_for_backward(slopes)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0][:, None, None, None]
