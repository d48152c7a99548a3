"""Ray sampling of the reference volume renderer: uniform and importance-sampled interval edges.

As in nerfacc, sample positions are at even steps of the cumulative distribution, and edges halfway between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def importance_edges(edges: Tensor, cdf: Tensor, count: int, jitter: Tensor | None = None) -> Tensor:
    """Draw the edges of `count` intervals along each ray by inverse transform sampling.

    Args:
        edges: ascending distances [..., E].
        cdf: cumulative distribution at the edges, ascending [..., E].
        count: number of intervals, at least 2.
        jitter: position of samples in their steps, 0 to 1 [...]; None: 0.5.

    Returns:
        ascending edges [..., count + 1] within the given ones.
    """
    first, last = cdf[..., :1], cdf[..., -1:]
    within = 0.5 if jitter is None else jitter[..., None]
    steps = (torch.arange(count, dtype=edges.dtype, device=edges.device) + within) / count
    wanted = (first + steps * (last - first)).contiguous()  # [..., count]
    right = torch.searchsorted(cdf.contiguous(), wanted, right=True).clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, right - 1), cdf.gather(-1, right)
    start, end = edges.gather(-1, right - 1), edges.gather(-1, right)
    flat = high - low < 1e-10
    along = torch.where(flat, 0.5, (wanted - low) / torch.where(flat, 1, high - low))
    at = start + along * (end - start)  # [..., count]
    middle = (at[..., 1:] + at[..., :-1]) / 2
    begin = torch.maximum(at[..., :1] - (at[..., 1:2] - at[..., :1]) / 2, edges[..., :1])
    finish = torch.minimum(at[..., -1:] + (at[..., -1:] - at[..., -2:-1]) / 2, edges[..., -1:])
    return torch.cat((begin, middle, finish), dim=-1)


def uniform_edges(near: float, far: float, count: int, jitter: Tensor) -> Tensor:
    """Return the edges [..., count + 1] of uniform intervals in [near, far], shifted by jitter [...]."""
    unit = jitter.new_tensor([0.0, 1.0]).expand(*jitter.shape, 2)
    return near + (far - near) * importance_edges(unit, unit, count, jitter)


def stopped_fraction(density: Tensor, edges: Tensor) -> Tensor:
    """Return the fraction of light stopped before each edge [..., E], for densities [..., E - 1].

    It is 1 at the last edge.
    """
    transmittance = torch.exp(-(density * edges.diff(dim=-1)).cumsum(-1))  # [..., E - 1]
    return F.pad(1 - F.pad(transmittance[..., :-1], (1, 0), value=1.0), (0, 1), value=1.0)
