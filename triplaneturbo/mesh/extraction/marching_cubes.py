"""From an sdf on a bent grid to a closed triangle mesh: marching cubes in plain torch, on any device.

The rules are those of the public implementation: a node is outside if its sdf is zero or more; one layer of
outside nodes is laid around the grid, so that the surface is closed even where the solid meets the box; nodes
are moved by their offset, in cells, as it is; one vertex stands on each grid edge whose ends differ, where
the sdf is zero by linear interpolation between the moved nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.extraction import marching_cubes_tables

PAD = 1.0  # the sdf of the nodes around the grid


@dataclass(frozen=True)
class Topology:
    """How the surface runs through the grid, known from signs alone.

    Attributes:
        resolution: nodes R along each side of the grid.
        lower: lower end of each vertex's grid edge, as x, y, z from -1 to R - 1, int64 [V, 3]; -1 is in the
            layer of outside nodes around the grid.
        axis: the axis 0, 1 or 2 along which the edge runs [V].
        faces: indices into these [F, 3], counter-clockwise seen from outside.
    """

    resolution: int
    lower: Tensor
    axis: Tensor
    faces: Tensor

    def ends(self) -> Tensor:
        """The two nodes of each vertex's edge as flat indices z + R (y + R x), [V, 2]; -1 around the grid."""
        size = self.resolution
        step = F.one_hot(self.axis, 3)
        both = torch.stack((self.lower, self.lower + step), 1)  # [V, 2, 3]
        x, y, z = both.unbind(-1)
        around = (both < 0).any(-1) | (both >= size).any(-1)
        return torch.where(around, -1, (x * size + y) * size + z)


def marching_cubes(sdf: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The surface between nodes of negative sdf and others, differentiable in both arguments.

    Args:
        sdf: [R, R, R], R >= 2, indexed [x, y, z]; the nodes lie on [-1, 1]^3, those at the ends on its sides.
        offset: how far each node is moved, in cells [R, R, R, 3]; None: not at all.

    Returns:
        vertices [V, 3] in the space of [-1, 1]^3, in the order of their grid edge's lower node and then axis;
        faces [F, 3], int64, counter-clockwise seen from outside. Both are empty if no node is negative, or
        none is positive.
    """
    size = len(sdf)
    if sdf.shape != (size,) * 3 or size < 2:
        raise ValueError(f"sdf should be of shape [R, R, R] with R >= 2, not {tuple(sdf.shape)}")
    if offset is not None and offset.shape != (*sdf.shape, 3):
        raise ValueError(f"offset should be of shape {(*sdf.shape, 3)}, not {tuple(offset.shape)}")
    topology = trace(sdf.detach())
    ends = topology.ends()
    moved = None if offset is None else offset.reshape(-1, 3)[ends.clamp_min(0)]  # [V, 2, 3]
    return place(topology, ends, sdf.reshape(-1)[ends.clamp_min(0)], moved), topology.faces


def place(topology: Topology, ends: Tensor, values: Tensor, offsets: Tensor | None) -> Tensor:
    """Where the vertices lie, given what the field says at the ends of their edges.

    Args:
        topology: where the surface runs.
        ends: `topology.ends()`, [V, 2]. Where -1, what `values` and `offsets` hold is not used.
        values: sdf [V, 2].
        offsets: in cells [V, 2, 3], or None.

    Returns:
        vertices [V, 3].
    """
    around = ends < 0
    low, high = torch.where(around, PAD, values).unbind(1)
    # Exactly equal ends cannot differ in sign, so the division is safe.
    along = ((0 - low) / (high - low)).clamp(0, 1)[:, None]  # [V, 1]
    start = topology.lower.to(values.dtype)
    step = F.one_hot(topology.axis, 3).to(values.dtype)
    if offsets is not None:
        move = offsets.to(values.dtype).masked_fill(around[..., None], 0)
        step = step + move[:, 1] - move[:, 0]
        start = start + move[:, 0]
    return (start + along * step) * (2 / (topology.resolution - 1)) - 1


def trace(sdf: Tensor) -> Topology:
    """Where the surface runs through a grid of sdf values [R, R, R], of which only the signs matter here."""
    size = len(sdf)
    outside = sdf >= 0
    if outside.all() or not (sdf > 0).any():
        nothing = torch.zeros(0, 3, dtype=torch.int64, device=sdf.device)
        return Topology(size, nothing, nothing[:, 0], nothing)
    bits = F.pad(outside.view(torch.uint8), (1,) * 6, value=1)
    # A cell's pattern, its corners numbered 4 dx + 2 dy + dz, gathered one axis at a time.
    bits = torch.add(bits[:, :, :-1], bits[:, :, 1:], alpha=2)
    bits = torch.add(bits[:, :-1], bits[:, 1:], alpha=4)
    pattern = torch.add(bits[:-1], bits[1:], alpha=16).flatten()  # [(R + 1)^3]
    # All-inside is 0 and all-outside is 255: adding one makes these 1 and 0 in uint8.
    cells = ((pattern + 1) > 1).nonzero()[:, 0]  # [M], in order
    pattern = pattern[cells].long()
    side = size + 1

    # Each cell owns the edges that leave its lowest corner: vertices are ordered by cell, then axis.
    lowest = pattern & 1
    owned = torch.stack([(pattern >> bit & 1) != lowest for bit in (4, 2, 1)], 1)  # [M, 3]
    holder, axis = owned.nonzero().unbind(1)
    corner = cells[holder]
    lower = torch.stack((corner // side**2, corner // side % side, corner % side), 1) - 1
    number = owned.flatten().long().cumsum(0).sub_(1)  # vertex of each owned edge [3 M]

    counts, starts, flat = marching_cubes_tables.packed(sdf.device)
    count = counts[pattern]
    total = torch.repeat_interleave(torch.arange(len(cells), device=sdf.device), count)  # [F]
    rank = torch.arange(len(total), device=sdf.device) - (count.cumsum(0) - count)[total]
    edges = flat[starts[pattern][total] + rank]  # [F, 3] edges of the cell
    # The owner of an edge is the cell whose lowest corner is the edge's lower end.
    steps = torch.tensor(
        [
            (x * side + y) * side + z
            for x, y, z in (
                marching_cubes_tables.corner_offset(low) for _, low in marching_cubes_tables.EDGES
            )
        ],
        device=sdf.device,
    )
    axes = torch.tensor([axis for axis, _ in marching_cubes_tables.EDGES], device=sdf.device)
    slot = torch.empty(side**3, dtype=torch.int32, device=sdf.device)
    slot[cells] = torch.arange(len(cells), dtype=torch.int32, device=sdf.device)
    owner = slot[cells[total][:, None] + steps[edges]].long()  # [F, 3]
    return Topology(size, lower, axis, number[3 * owner + axes[edges]])
