"""Where the samples of a ray lie: edges of intervals, drawn evenly or where a cumulative share grows.

The rules are nerfacc's: positions are taken at even steps of the share, and edges half way between positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def importance_edges(edges: Tensor, share: Tensor, count: int, jitter: Tensor | None = None) -> Tensor:
    """Draw the edges of `count` intervals along each ray.

    Args:
        edges: ascending distances [..., E].
        share: how much of the whole lies before each of them, ascending [..., E].
        count: how many intervals, at least 2.
        jitter: where in its step each ray's positions lie, 0 to 1 [...]; None: in the middle.

    Returns:
        edges [..., count + 1], ascending, within those given.
    """
    first, last = share[..., :1], share[..., -1:]
    within = 0.5 if jitter is None else jitter[..., None]
    steps = (torch.arange(count, dtype=edges.dtype, device=edges.device) + within) / count
    wanted = (first + steps * (last - first)).contiguous()  # [..., count]
    right = torch.searchsorted(share.contiguous(), wanted, right=True).clamp(1, share.shape[-1] - 1)
    low, high = share.gather(-1, right - 1), share.gather(-1, right)
    start, end = edges.gather(-1, right - 1), edges.gather(-1, right)
    flat = high - low < 1e-10
    along = torch.where(flat, 0.5, (wanted - low) / torch.where(flat, 1, high - low))
    at = start + along * (end - start)  # [..., count]
    middle = (at[..., 1:] + at[..., :-1]) / 2
    begin = torch.maximum(at[..., :1] - (at[..., 1:2] - at[..., :1]) / 2, edges[..., :1])
    finish = torch.minimum(at[..., -1:] + (at[..., -1:] - at[..., -2:-1]) / 2, edges[..., -1:])
    return torch.cat((begin, middle, finish), dim=-1)


def uniform_edges(near: float, far: float, count: int, jitter: Tensor) -> Tensor:
    """Edges [..., count + 1] of even intervals from near to far, shifted by jitter [...] (0.5: not)."""
    unit = jitter.new_tensor([0.0, 1.0]).expand(*jitter.shape, 2)
    return near + (far - near) * importance_edges(unit, unit, count, jitter)


def share_before(density: Tensor, edges: Tensor) -> Tensor:
    """The share of a ray's light that is stopped before each edge [..., E], for densities [..., E - 1].

    What gets through all intervals counts as stopped at the last edge.
    """
    passed = torch.exp(-(density * edges.diff(dim=-1)).cumsum(-1))  # [..., E - 1]
    return F.pad(1 - F.pad(passed[..., :-1], (1, 0), value=1.0), (0, 1), value=1.0)
