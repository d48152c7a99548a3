"""Coarse-to-fine surface extraction: the field is evaluated only at grid nodes near its surface.

The grid's nodes are grouped into blocks of 8, 4 and 2 along each side. A block whose nodes are proven to be
all outside or all inside (interval_bounds.py) is skipped; in the other blocks, refined to the smallest size,
the nodes are evaluated. The signs of all nodes are then known, and with them the connectivity of the surface;
nodes beside the surface that lie in proven blocks are evaluated last. Every node that a vertex depends on
thus has its value of the dense grid, and the mesh is bit-identical. This relies on guaranteed bounds, not on
the field being a true distance. For a field so rough that few blocks can be proven (estimated on a sample),
the dense grid is evaluated instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.interval_bounds import BlockBounds
from triplaneturbo.mesh.extraction.marching_cubes import extract_topology, vertex_positions
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.representations.triplane import TriplaneField

_SIZES = (8, 4, 2)  # nodes along each side of a block
# Shares of the grid that lie in undecided blocks:
_ENOUGH = 0.1  # up to this, the nodes are evaluated without further refinement
_DOUBTFUL = 0.5  # above this, a sample of the smallest blocks shows whether refinement will help
_TOO_MANY = 0.12  # the dense grid is evaluated if a larger share than this is expected to stay undecided,
_TOO_LONG = 0.6  # or if the smallest blocks of more than this share would have to be bounded
# Up to these products of nodes and the MLP's width, the dense grid is faster:
_SMALL_COMPILED, _SMALL_IN_TORCH = 192**3 * 32, 96**3 * 64


@dataclass(frozen=True)
class Surface:
    """An extracted surface and the cost of its extraction.

    Attributes:
        vertices: positions within [-1, 1]^3 or just outside [V, 3].
        faces: vertex indices int64 [F, 3], counter-clockwise seen from outside.
        nodes: number of grid nodes at which the sdf was evaluated.
        blocks: number of blocks whose bounds were computed; one costs about as much as twenty nodes.
        dense: whether all nodes were evaluated.
    """

    vertices: Tensor
    faces: Tensor
    nodes: int
    blocks: int
    dense: bool

    def mesh(self) -> Mesh:
        """Return the surface in float32 on the CPU, where sums over faces have a fixed order."""
        return Mesh(self.vertices.float().cpu(), self.faces.cpu())


@torch.no_grad()
def extract(
    field: TriplaneField, resolution: int, mode: Literal["auto", "dense", "sparse"] = "auto"
) -> Surface:
    """Extract the surface of a field on a grid with `resolution` nodes along each side of [-1, 1]^3.

    Args:
        field: the field.
        resolution: at least 2; memory grows with its cube (about 25 bytes per node).
        mode: "auto" works coarse to fine where that is less work, "sparse" always does, and "dense" evaluates
            every node. All three give the same mesh.

    Raises:
        EmptySurfaceError: no node is inside, or none is outside.
        UserError: the resolution is too small, or the field's values are not finite.
    """
    if resolution < 2:
        raise UserError(f"Invalid resolution {resolution}; use at least 2.")
    evaluated = None
    work = resolution**3 * field.fields.config.mlp_width
    is_small = work <= (_SMALL_COMPILED if field.compiled else _SMALL_IN_TORCH)
    if mode == "sparse" or (mode == "auto" and not is_small):
        evaluated = _evaluate_near_surface(field, resolution, allow_dense=mode == "auto")
    sdf, certain, blocks = evaluated or (field.sdf_grid(resolution), None, 0)
    topology = extract_topology(sdf)
    if not len(topology.faces):
        raise EmptySurfaceError
    ends = topology.ends()  # [V, 2], -1 in the padding
    beside, slot = _unique_nodes(ends, resolution**3)
    flat = sdf.view(-1)
    nodes = resolution**3
    if certain is not None:
        known = certain.view(-1)
        missing = beside[known[beside] != 0]
        values = field.sdf_at(missing, resolution)
        if not torch.equal(values >= 0, known[missing] > 0):
            return extract(field, resolution, "dense")  # sums are less precise than float32 (TF32?)
        flat[missing] = values
        nodes = int((known == 0).sum()) + len(missing)
    offsets = field.offset_at(beside, resolution)[slot]  # [V, 2, 3]
    vertices = vertex_positions(topology, ends, flat[ends.clamp_min(0)], offsets)
    if not vertices.isfinite().all():
        raise UserError("The model returned non-finite values; run it in float32 or use other weights.")
    return Surface(vertices, topology.faces, nodes, blocks, certain is None)


def _evaluate_near_surface(
    field: TriplaneField, resolution: int, allow_dense: bool
) -> tuple[Tensor, Tensor, int] | None:
    """Evaluate the nodes whose sign is not proven.

    Returns:
        sdf [R, R, R], +1 or -1 where only the sign is proven; certain, int8 [R, R, R]: the proven sign, or 0
        where the node was evaluated; the number of blocks bounded. None if `allow_dense` and too few blocks
        could be proven.
    """
    axis = torch.arange(-(-resolution // _SIZES[0]), device=field.device)
    blocks = torch.cartesian_prod(axis, axis, axis)  # [M, 3]
    certain = torch.zeros((len(axis),) * 3, dtype=torch.int8, device=field.device)
    bounds = {_SIZES[0]: BlockBounds(field, resolution, _SIZES[0])}
    total = 0
    for size in _SIZES:
        if total:
            certain = _upsample(certain, -(-resolution // size))
            blocks = _subdivide(blocks, len(certain))
            bounds[size] = bounds.get(size) or BlockBounds(field, resolution, size)
        total += len(blocks)
        signs = bounds[size].signs(blocks)
        certain[tuple(blocks.unbind(1))] = signs
        blocks = blocks[signs == 0]
        share = len(blocks) / len(certain) ** 3
        if share <= _ENOUGH:
            break
        finest = _SIZES[-1]
        if allow_dense and share > _DOUBTFUL and size > finest:
            bounds[finest] = bounds.get(finest) or BlockBounds(field, resolution, finest)
            tried = _sample_blocks(blocks, size // finest, bounds[finest].count)
            total += len(tried)
            likely = share * float((bounds[finest].signs(tried) == 0).float().mean())
            if likely > _TOO_MANY or (size == 2 * finest and share > _TOO_LONG):
                return None
    while size > 1:
        size //= 2
        certain = _upsample(certain, -(-resolution // size))
    sdf = certain.float()
    nodes = (certain.view(-1) == 0).nonzero()[:, 0]
    sdf.view(-1)[nodes] = field.sdf_at(nodes, resolution)
    return sdf, certain, total


def _subdivide(blocks: Tensor, count: int) -> Tensor:
    """Split each of blocks [M, 3] into eight of half the size, without those outside the grid."""
    halves = torch.arange(2, device=blocks.device)
    blocks = (2 * blocks[:, None] + torch.cartesian_prod(halves, halves, halves)).flatten(0, 1)
    return blocks[(blocks < count).all(1)]


def _sample_blocks(blocks: Tensor, ratio: int, count: int, number: int = 2048) -> Tensor:
    """Sample about `number` blocks, smaller by `ratio`, within blocks [M, 3]; deterministic."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(blocks), (number,), generator=generator)
    inner = torch.randint(ratio, (number, 3), generator=generator)
    small = blocks[chosen.to(blocks.device)] * ratio + inner.to(blocks.device)
    return small[(small < count).all(1)]


def _upsample(grid: Tensor, size: int) -> Tensor:
    """Repeat each value twice along each axis and crop to `size` along each side."""
    for axis in range(3):
        grid = grid.repeat_interleave(2, axis).narrow(axis, 0, size)
    return grid.contiguous()


def _unique_nodes(nodes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the sorted unique values of `nodes` other than -1 [M], and the index of each node in them.

    Where a node is -1, its index is valid but arbitrary. Like `torch.unique`, but linear in `count`.
    """
    marked = torch.zeros(count, dtype=torch.bool, device=nodes.device)
    marked[nodes[nodes >= 0]] = True
    distinct = marked.nonzero()[:, 0]
    place_of = torch.zeros(count, dtype=torch.int32, device=nodes.device)
    place_of[distinct] = torch.arange(len(distinct), dtype=torch.int32, device=nodes.device)
    return distinct, place_of[nodes.clamp_min(0)].long()
