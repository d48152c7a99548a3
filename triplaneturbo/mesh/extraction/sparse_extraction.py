"""From a field to its surface, coarse to fine: only nodes near the surface are evaluated.

The grid's nodes are taken in blocks of 8, 4 and 2 along each side. A block whose nodes are proven to be all
outside or all inside (bounds.py) is not looked into; in the others the smallest blocks are evaluated. The
signs of all nodes are then known, so is the surface's course, and those of the nodes beside it that lie in
proven blocks are evaluated too. Every node that matters thus has the very value that it has in the dense
grid, and the mesh is the same bit for bit. That rests on proofs, not on the field being a distance. On a
field so rough that little can be proven (a few trials tell), the dense grid is taken instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.interval_bounds import BlockBounds
from triplaneturbo.mesh.extraction.marching_cubes import place, trace
from triplaneturbo.representations.triplane import TriplaneField

_SIZES = (8, 4, 2)  # nodes along each side of a block
_ENOUGH = 0.1  # with so small a share of the grid uncertain, it is evaluated without looking closer
_DOUBTFUL = 0.5  # with so large a share uncertain, a few trials tell whether looking closer will help
_TOO_MANY = 0.12  # the dense grid is taken if a greater share than this is likely to stay uncertain,
_TOO_LONG = 0.6  # or if the smallest blocks of so large a share would have to be bounded
_SMALL = 96  # up to this resolution the dense grid takes less time than the blocks


@dataclass(frozen=True)
class Surface:
    """A field's surface, and what it took.

    Attributes:
        vertices: positions within [-1, 1]^3 or just outside [V, 3].
        faces: vertex indices [F, 3], int64, counter-clockwise seen from outside.
        nodes: how many grid nodes' sdf was evaluated.
        blocks: how many blocks were bounded on the way; one costs about as much as twenty
            nodes.
        dense: whether all nodes were evaluated.
    """

    vertices: Tensor
    faces: Tensor
    nodes: int
    blocks: int
    dense: bool


@torch.no_grad()
def extract(
    field: TriplaneField, resolution: int, mode: Literal["auto", "dense", "sparse"] = "auto"
) -> Surface:
    """The surface of a field on a grid of `resolution` nodes along each side of [-1, 1]^3.

    Args:
        field: the field.
        resolution: at least 2; memory grows with its cube (about 25 bytes a node).
        mode: "auto" goes coarse to fine where that is less work; "sparse" does so whatever it takes; "dense"
            evaluates every node. The mesh is the same in all three.

    Raises:
        EmptySurfaceError: no node is inside, or none is outside.
        UserError: the resolution is too small, or the field's numbers are not finite.
    """
    if resolution < 2:
        raise UserError(f"A resolution of {resolution} is too small; use at least 2.")
    found = None
    if mode == "sparse" or (mode == "auto" and resolution > _SMALL):
        found = _near_surface(field, resolution, give_up=mode == "auto")
    sdf, certain, blocks = found or (field.sdf_grid(resolution), None, 0)
    topology = trace(sdf)
    if not len(topology.faces):
        raise EmptySurfaceError
    ends = topology.ends()  # [V, 2], -1 around the grid
    beside, slot = _distinct(ends, resolution**3)
    flat = sdf.view(-1)
    nodes = resolution**3
    if certain is not None:
        known = certain.view(-1)
        missing = beside[known[beside] != 0]
        values = field.sdf_at(missing, resolution)
        if not torch.equal(values >= 0, known[missing] > 0):
            return extract(field, resolution, "dense")  # sums are rougher than float32 (TF32?)
        flat[missing] = values
        nodes = int((known == 0).sum()) + len(missing)
    offsets = field.offset_at(beside, resolution)[slot]  # [V, 2, 3]
    vertices = place(topology, ends, flat[ends.clamp_min(0)], offsets)
    if not vertices.isfinite().all():
        raise UserError("The model gave numbers that are not finite; run it in float32 or use other weights.")
    return Surface(vertices, topology.faces, nodes, blocks, certain is None)


def _near_surface(field: TriplaneField, resolution: int, give_up: bool) -> tuple[Tensor, Tensor, int] | None:
    """Evaluate the nodes whose sign is not proven.

    Returns:
        sdf [R, R, R], where a proven sign stands as +1 or -1; certain, int8 [R, R, R]: that sign, or 0 where
        the node was evaluated; the number of blocks bounded. None if `give_up` and too little was proven.
    """
    axis = torch.arange(-(-resolution // _SIZES[0]), device=field.device)
    blocks = torch.cartesian_prod(axis, axis, axis)  # [M, 3]
    certain = torch.zeros((len(axis),) * 3, dtype=torch.int8, device=field.device)
    bounds = {_SIZES[0]: BlockBounds(field, resolution, _SIZES[0])}
    total = 0
    for size in _SIZES:
        if total:
            certain = _doubled(certain, -(-resolution // size))
            blocks = _halves(blocks, len(certain))
            bounds[size] = bounds.get(size) or BlockBounds(field, resolution, size)
        total += len(blocks)
        signs = bounds[size].signs(blocks)
        certain[tuple(blocks.unbind(1))] = signs
        blocks = blocks[signs == 0]
        share = len(blocks) / len(certain) ** 3
        if share <= _ENOUGH:
            break
        finest = _SIZES[-1]
        if give_up and share > _DOUBTFUL and size > finest:
            bounds[finest] = bounds.get(finest) or BlockBounds(field, resolution, finest)
            tried = _some(blocks, size // finest, bounds[finest].count)
            total += len(tried)
            likely = share * float((bounds[finest].signs(tried) == 0).float().mean())
            if likely > _TOO_MANY or (size == 2 * finest and share > _TOO_LONG):
                return None
    while size > 1:
        size //= 2
        certain = _doubled(certain, -(-resolution // size))
    sdf = certain.float()
    nodes = (certain.view(-1) == 0).nonzero()[:, 0]
    sdf.view(-1)[nodes] = field.sdf_at(nodes, resolution)
    return sdf, certain, total


def _halves(blocks: Tensor, count: int) -> Tensor:
    """The eight blocks of half the size in each of blocks [M, 3], less those beyond the grid."""
    halves = torch.arange(2, device=blocks.device)
    blocks = (2 * blocks[:, None] + torch.cartesian_prod(halves, halves, halves)).flatten(0, 1)
    return blocks[(blocks < count).all(1)]


def _some(blocks: Tensor, ratio: int, count: int, number: int = 2048) -> Tensor:
    """About `number` of the blocks, smaller by `ratio`, within blocks [M, 3]; always the same ones."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(blocks), (number,), generator=generator)
    inner = torch.randint(ratio, (number, 3), generator=generator)
    small = blocks[chosen.to(blocks.device)] * ratio + inner.to(blocks.device)
    return small[(small < count).all(1)]


def _doubled(grid: Tensor, size: int) -> Tensor:
    """Each value eight times, as twice as fine a grid, cut to `size` along each side."""
    for axis in range(3):
        grid = grid.repeat_interleave(2, axis).narrow(axis, 0, size)
    return grid.contiguous()


def _distinct(nodes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct values among `nodes` that are not -1, in order [M], and where each stands in them.

    Where a node is -1, its place is one that exists, and no more is said.
    """
    marked = torch.zeros(count, dtype=torch.bool, device=nodes.device)
    marked[nodes[nodes >= 0]] = True
    distinct = marked.nonzero()[:, 0]
    place_of = torch.zeros(count, dtype=torch.int32, device=nodes.device)
    place_of[distinct] = torch.arange(len(distinct), dtype=torch.int32, device=nodes.device)
    return distinct, place_of[nodes.clamp_min(0)].long()
