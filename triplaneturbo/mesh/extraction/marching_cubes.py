"""Differentiable marching cubes on a deformed grid, in plain torch, on any device.

The conventions are those of the public TriplaneTurbo implementation: a node is outside if its sdf is zero or
positive; the grid is padded with one layer of outside nodes, so that the surface is closed even where the
solid meets the box; nodes are displaced by their offset, in cells; each grid edge whose ends differ in sign
has one vertex, where the sdf is zero by linear interpolation between the displaced nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.extraction import marching_cubes_tables

PAD = 1.0  # sdf of the padding nodes


@dataclass(frozen=True)
class Topology:
    """Connectivity of the surface, which depends on the signs of the sdf alone.

    Attributes:
        resolution: nodes R along each side of the grid.
        lower: lower node of each vertex's grid edge, as x, y, z from -1 to R - 1, int64 [V, 3]; -1 is in the
            padding around the grid.
        axis: axis 0, 1 or 2 of that edge [V].
        faces: vertex indices [F, 3], counter-clockwise seen from outside.
    """

    resolution: int
    lower: Tensor
    axis: Tensor
    faces: Tensor

    def ends(self) -> Tensor:
        """Return the two nodes of each vertex's edge as flat indices z + R (y + R x) [V, 2]; -1: padding."""
        size = self.resolution
        step = F.one_hot(self.axis, 3)
        nodes = torch.stack((self.lower, self.lower + step), 1)  # [V, 2, 3]
        x, y, z = nodes.unbind(-1)
        is_padding = (nodes < 0).any(-1) | (nodes >= size).any(-1)
        return torch.where(is_padding, -1, (x * size + y) * size + z)


def marching_cubes(sdf: Tensor, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Extract the surface between inside (negative) and outside nodes, differentiable in both arguments.

    Args:
        sdf: [R, R, R], R >= 2, indexed [x, y, z]; the nodes span [-1, 1]^3, including its sides.
        offset: displacement of each node, in cells [R, R, R, 3]; None: zero.

    Returns:
        vertices [V, 3] in the space of [-1, 1]^3, in order of their grid edge's lower node and then axis;
        faces int64 [F, 3], counter-clockwise seen from outside. Both are empty if no node is negative, or
        none is positive.

    Raises:
        ValueError: the shape of `sdf` or `offset` is invalid.
    """
    size = len(sdf)
    if sdf.shape != (size,) * 3 or size < 2:
        raise ValueError(f"sdf must have shape [R, R, R] with R >= 2, not {tuple(sdf.shape)}")
    if offset is not None and offset.shape != (*sdf.shape, 3):
        raise ValueError(f"offset must have shape {(*sdf.shape, 3)}, not {tuple(offset.shape)}")
    topology = extract_topology(sdf.detach())
    ends = topology.ends()
    moved = None if offset is None else offset.reshape(-1, 3)[ends.clamp_min(0)]  # [V, 2, 3]
    return vertex_positions(topology, ends, sdf.reshape(-1)[ends.clamp_min(0)], moved), topology.faces


def vertex_positions(topology: Topology, ends: Tensor, values: Tensor, offsets: Tensor | None) -> Tensor:
    """Compute vertex positions from the field's values at the ends of their grid edges.

    Args:
        topology: connectivity of the surface.
        ends: `topology.ends()` [V, 2]. Where it is -1, `values` and `offsets` are ignored.
        values: sdf [V, 2].
        offsets: displacement in cells [V, 2, 3], or None.

    Returns:
        vertices [V, 3].
    """
    is_padding = ends < 0
    low, high = torch.where(is_padding, PAD, values).unbind(1)
    # The ends differ in sign, so they are not equal and the division is safe.
    along = ((0 - low) / (high - low)).clamp(0, 1)[:, None]  # [V, 1]
    start = topology.lower.to(values.dtype)
    step = F.one_hot(topology.axis, 3).to(values.dtype)
    if offsets is not None:
        move = offsets.to(values.dtype).masked_fill(is_padding[..., None], 0)
        step = step + move[:, 1] - move[:, 0]
        start = start + move[:, 0]
    return (start + along * step) * (2 / (topology.resolution - 1)) - 1


def extract_topology(sdf: Tensor) -> Topology:
    """Compute the connectivity of the surface from the signs of an sdf [R, R, R]."""
    size = len(sdf)
    outside = sdf >= 0
    if outside.all() or not (sdf > 0).any():
        nothing = torch.zeros(0, 3, dtype=torch.int64, device=sdf.device)
        return Topology(size, nothing, nothing[:, 0], nothing)
    bits = F.pad(outside.view(torch.uint8), (1,) * 6, value=1)
    # Sign pattern of each cell, its corners numbered 4 dx + 2 dy + dz, gathered one axis at a time.
    bits = torch.add(bits[:, :, :-1], bits[:, :, 1:], alpha=2)
    bits = torch.add(bits[:, :-1], bits[:, 1:], alpha=4)
    pattern = torch.add(bits[:-1], bits[1:], alpha=16).flatten()  # [(R + 1)^3]
    # All-inside is 0 and all-outside is 255: adding one gives 1 and 0 in uint8.
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
