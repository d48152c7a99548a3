"""Volume renderer of SDF grids, with a numba backend for training on a CPU and a torch backend.

A ray is divided by edges, one where it enters [-1, 1]^3 and one after each step. With P = sigmoid(sharpness *
sdf) at the edges, the transmittance of an interval is min(1, P_after / P_before) (the discrete form of NeuS);
space in front of the cube is empty, P = 1. The ratios telescope: the transmittance up to an edge is P itself
for any step size, until the SDF first increases. A ray that misses the surface with a least SDF of f has
opacity 1 - P(f), and so receives a gradient where it passes the surface.

On a CPU, `render_grid` uses the kernels of neus_kernels.py; elsewhere, or on request, plain torch.
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

EMPTY_LOGIT = 12.0  # sharpness * sdf above which P is treated as 1 (it is 1 - 6e-6)
RAY_CHUNK = 2**14  # rays per chunk in plain torch
MIN_TRANSMITTANCE = 1e-5  # a ray terminates below this transmittance

Backend = Literal["auto", "numba", "torch"]


@dataclass(frozen=True)
class GridRendering:
    """The rendering of N rays per SDF grid; differentiable in the SDF.

    Attributes:
        opacity: one minus the final transmittance [B, N], 0 to 1.
        depth: sum of weights times distances along the ray, not normalised [B, N].
        normal: sum of weights times unit normals [B, N, 3]; its length is the opacity on a flat surface.
    """

    opacity: Tensor
    depth: Tensor
    normal: Tensor

    @property
    def distance(self) -> Tensor:
        """Expected distance along the ray [B, N]: depth / opacity, with opacity clamped to at least 1 %."""
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
    """Render rays through an SDF grid.

    Normals are central differences of the SDF at the nodes, normalised there and interpolated in between.
    They are smoother and more accurate than the gradient of the trilinear interpolation.

    Args:
        sdf: SDF at the nodes of a regular grid over [-1, 1]^3 [B, R, R, R], indexed [x, y, z], R >= 2.
        origins: ray origins [B, N, 3], inside or outside the cube; not differentiable.
        directions: unit directions [B, N, 3]; not differentiable.
        sharpness: s in sigmoid(s * sdf); opacity rises from 10 to 90 % over a distance of 4.4 / sharpness.
        samples: steps along each side of the cube; the step size is 2 / samples.
        jitter: draws the offset of each ray's edges within the first step; None: half a step.
        backend: "numba" (float32 on the CPU, one thread), "torch", or "auto": numba where possible.

    Raises:
        ValueError: a shape or a number is invalid, or the backend does not support the SDF.
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
    render = _RenderNumba.apply if _resolve_backend(backend, sdf) == "numba" else _render_torch_chunked
    out = render(sdf, origins, directions, shift, 2 / samples, sharpness)  # [B, N, 5]
    return GridRendering(out[..., 0], out[..., 1], out[..., 2:])


def _resolve_backend(backend: Backend, sdf: Tensor) -> str:
    """Return the backend for an SDF: "numba" or "torch"."""
    supported = sdf.device.type == "cpu" and sdf.dtype == torch.float32
    if backend == "numba" and not supported:
        raise ValueError(f"the numba backend needs float32 on the CPU, not {sdf.dtype} on {sdf.device}")
    return ("numba" if supported else "torch") if backend == "auto" else backend


def check_grid(sdf: Tensor) -> None:
    """Raise ValueError unless sdf is of shape [B, R, R, R] with R >= 2."""
    if sdf.ndim != 4 or len(set(sdf.shape[1:])) != 1 or sdf.shape[-1] < 2:
        raise ValueError(f"sdf should be of shape [B, R, R, R] with R >= 2, not {tuple(sdf.shape)}")


def gradient(sdf: Tensor) -> Tensor:
    """Return the gradient of sdf [B, R, R, R] at its nodes, in world units [B, R, R, R, 3].

    Differences are central, and one-sided on the faces of the cube.
    """
    derivatives = torch.gradient(sdf, spacing=2 / (sdf.shape[-1] - 1), dim=(1, 2, 3))
    return torch.stack(derivatives, dim=-1)


def unit(vectors: Tensor) -> Tensor:
    """Normalise vectors [..., 3] softly: those much shorter than 0.01 stay short; differentiable at zero."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + float(grid_gradients.NORMAL_EPS))


def eikonal(sdf: Tensor, backend: Backend = "auto") -> Tensor:
    """Eikonal loss of SDF grids: mean of (|gradient| - 1)^2 over the nodes of sdf [B, R, R, R], [B].

    `backend` is as in `render_grid`.
    """
    check_grid(sdf)
    if _resolve_backend(backend, sdf) == "numba":
        return _EikonalNumba.apply(sdf)
    length = (gradient(sdf).square().sum(-1) + float(grid_gradients.LENGTH_EPS)).sqrt()  # [B, R, R, R]
    return (length - 1).square().mean((1, 2, 3))


def trilinear(grid: Tensor, points: Tensor) -> Tensor:
    """Interpolate a grid over [-1, 1]^3; points outside are clamped to the border.

    Args:
        grid: [B, R, R, R] or [B, R, R, R, C], indexed [x, y, z].
        points: [B, ..., 3].

    Returns:
        values [B, ...] or [B, ..., C]; differentiable in grid and points.
    """
    channels = grid[:, None] if grid.ndim == 4 else grid.movedim(-1, 1)  # [B, C, R, R, R]
    # In grid_sample, x is the last axis of the grid.
    at = points.flip(-1).flatten(1, -2)[:, :, None, None]  # [B, M, 1, 1, 3]
    values = F.grid_sample(channels, at, mode="bilinear", padding_mode="border", align_corners=True)
    values = values[..., 0, 0].movedim(1, -1).unflatten(1, points.shape[1:-1])  # [B, ..., C]
    return values[..., 0] if grid.ndim == 4 else values


def span(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances at which rays [..., 3] enter and leave [-1, 1]^3, [...] each; both 0 on a miss."""
    # A ray parallel to a face gives +-inf, or nan if it lies in the plane of the face (no limit then).
    one, other = (-1 - origins) / directions, (1 - origins) / directions
    near, far = torch.minimum(one, other), torch.maximum(one, other)
    enter = near.nan_to_num(-math.inf, math.inf, -math.inf).amax(-1).clamp_min(0)
    leave = far.nan_to_num(math.inf, math.inf, -math.inf).amin(-1)
    hit = enter < leave
    return enter.where(hit, 0), leave.where(hit, 0)


def _render_torch_chunked(
    sdf: Tensor, origins: Tensor, directions: Tensor, shift: Tensor, step: float, sharpness: float
) -> Tensor:
    """Render opacity, depth and normal [B, N, 5] in plain torch.

    Many rays are rendered in checkpointed chunks; a view of 128^2 rays takes 0.2 GB.
    """
    normals = unit(gradient(sdf))
    if origins.shape[1] <= RAY_CHUNK:
        return _render_torch(sdf, normals, origins, directions, shift, step, sharpness)
    chunks = zip(*(part.split(RAY_CHUNK, 1) for part in (origins, directions, shift)), strict=True)
    outputs = [
        checkpoint(_render_torch, sdf, normals, *chunk, step, sharpness, use_reentrant=False)
        for chunk in chunks
    ]
    return torch.cat(outputs, 1)


def _render_torch(
    sdf: Tensor,
    normals: Tensor,
    origins: Tensor,
    directions: Tensor,
    shift: Tensor,
    step: float,
    sharpness: float,
) -> Tensor:
    """Render one chunk of rays; normals are given at the nodes. All rays have the same number of edges."""
    enter, leave = span(origins, directions)  # [B, N]
    count = math.ceil(2 * math.sqrt(3) / step) + 1
    along = torch.arange(count, device=sdf.device, dtype=sdf.dtype) + shift[..., None]  # [B, N, E - 1]
    edges = torch.minimum(enter[..., None] + along * step, leave[..., None])
    edges = torch.cat((enter[..., None], edges), dim=-1)  # [B, N, E]
    points = origins[..., None, :] + edges[..., None] * directions[..., None, :]  # [B, N, E, 3]
    log_p = F.logsigmoid(sharpness * trilinear(sdf, points))
    before = F.pad(log_p[..., :-1], (1, 0))  # P = 1 in front of the cube
    transmittance = (log_p - before).clamp_max(0).cumsum(-1).exp()  # [B, N, E]
    hit = (enter < leave)[..., None]
    weights = (F.pad(transmittance[..., :-1], (1, 0), value=1.0) - transmittance) * hit
    midpoints = (edges + torch.cat((edges[..., :1], edges[..., :-1]), dim=-1)) / 2
    points = origins[..., None, :] + midpoints[..., None] * directions[..., None, :]
    normal = (weights[..., None] * trilinear(normals, points)).sum(-2)
    return torch.cat((weights.sum(-1)[..., None], (weights * midpoints).sum(-1)[..., None], normal), dim=-1)


class _RenderNumba(torch.autograd.Function):
    """Render opacity, depth and normal [B, N, 5] by neus_kernels; float32 on the CPU."""

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
        numbers = [
            np.float32(number) for number in (step, sharpness, EMPTY_LOGIT / sharpness, MIN_TRANSMITTANCE)
        ]
        out = sdf.new_empty(*origins.shape[:2], 5)
        neus_kernels.forward(*(part.numpy() for part in arrays), *numbers, out.numpy())
        ctx.save_for_backward(*arrays, out)
        ctx.numbers = numbers
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *arrays, out = (part.numpy() for part in ctx.saved_tensors)
        sdf, normals = arrays[:2]
        grad_sdf, grad_normals = np.zeros_like(sdf), np.zeros_like(normals)
        grad_out = grads[0].contiguous().numpy()
        neus_kernels.backward(*arrays, *ctx.numbers, out, grad_out, grad_sdf, grad_normals)
        grid_gradients.backward(sdf, grad_normals, grad_sdf)
        return torch.from_numpy(grad_sdf), None, None, None, None, None


class _EikonalNumba(torch.autograd.Function):
    """Eikonal loss by grid_gradients, which computes value and gradient together; float32 on the CPU."""

    @staticmethod
    def forward(ctx: Any, sdf: Tensor) -> Tensor:
        grad_sdf, out = torch.zeros_like(sdf), sdf.new_empty(len(sdf))
        grid_gradients.eikonal(sdf.detach().contiguous().numpy(), out.numpy(), grad_sdf.numpy())
        ctx.save_for_backward(grad_sdf)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad_sdf,) = ctx.saved_tensors
        return grad_sdf * grads[0][:, None, None, None]
