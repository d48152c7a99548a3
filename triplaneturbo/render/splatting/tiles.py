"""Assignment of projected Gaussians to image tiles, front to back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TileLists:
    """The Gaussians of each tile that has any, tiles with most Gaussians first.

    Attributes:
        tiles: index of each tile [T]: (view * rows + row) * columns + column.
        starts, counts: the tile's Gaussians are members[start : start + count] [T].
        members: indices into the flattened [V, N] Gaussians, ordered by depth within a tile [P].
        rows, columns: number of tiles in a view.
        size: side of a tile in pixels.
    """

    tiles: Tensor
    starts: Tensor
    counts: Tensor
    members: Tensor
    rows: int
    columns: int
    size: int

    def chunks(self, budget: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield groups of tiles with similar counts, padded to the longest.

        Args:
            budget: largest number of (tile, Gaussian) pairs, with padding, of a group; a group has at
                least one tile.

        Yields:
            positions in `tiles` [t] and members [t, K]; padding is -1.
        """
        counts = self.counts.tolist()
        first = 0
        while first < len(counts):
            longest = counts[first]
            last = min(len(counts), first + max(1, budget // longest))
            # Padding to a much longer list wastes time.
            while last > first + 1 and counts[last - 1] * 2 < longest:
                last -= 1
            group = torch.arange(first, last, device=self.tiles.device)
            place = torch.arange(longest, device=self.tiles.device)
            index = (self.starts[group, None] + place).clamp_max(len(self.members) - 1)
            yield group, torch.where(place < self.counts[group, None], self.members[index], -1)
            first = last


@torch.no_grad()
def assign(
    means2d: Tensor,
    reach: Tensor,
    depths: Tensor,
    height: int,
    width: int,
    size: int,
) -> TileLists:
    """List the Gaussians whose bounding boxes contain a pixel centre of each tile.

    Args:
        means2d: positions in pixels [V, N, 2].
        reach: half the size of the bounding boxes [V, N, 2]; Gaussians with 0 are left out.
        depths: view depths [V, N]. Equal depths keep the order of the Gaussians.
        height, width: size of the image in pixels.
        size: side of a tile in pixels.
    """
    count = depths.shape[1]
    rows, columns = -(-height // size), -(-width // size)
    limit = means2d.new_tensor([width - 1, height - 1])
    # First and last pixel whose centre (c + 0.5) is in the box, before clamping to the image.
    low = (means2d - reach - 0.5).ceil()
    high = (means2d + reach - 0.5).floor()
    touches = ((low <= limit) & (high >= 0) & (low <= high) & (reach > 0)).all(-1)  # [V, N]
    index = torch.nonzero(touches.flatten())[:, 0]  # [M]
    index = index[torch.argsort(depths.flatten()[index], stable=True)]
    low = torch.minimum(low.flatten(0, 1)[index].clamp_min(0), limit).long() // size  # [M, 2] tiles
    high = torch.minimum(high.flatten(0, 1)[index].clamp_min(0), limit).long() // size
    extent = high - low + 1
    repeats = extent.prod(1)  # [M]
    owner = torch.repeat_interleave(torch.arange(len(index), device=index.device), repeats)  # [P]
    within = torch.arange(len(owner), device=index.device) - (repeats.cumsum(0) - repeats)[owner]
    column = low[owner, 0] + within % extent[owner, 0]
    row = low[owner, 1] + within // extent[owner, 0]
    tile = (index[owner] // count * rows + row) * columns + column  # [P]
    tile, order = torch.sort(tile, stable=True)  # keeps the order of depth
    tiles, counts = torch.unique_consecutive(tile, return_counts=True)
    starts = counts.cumsum(0) - counts
    by_count = torch.argsort(counts, descending=True, stable=True)
    return TileLists(
        tiles[by_count], starts[by_count], counts[by_count], index[owner[order]], rows, columns, size
    )
