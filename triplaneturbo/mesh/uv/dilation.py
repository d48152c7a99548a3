"""The nearest covered texel of every texel: how a texture is spread over the gaps of its atlas."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.utils.kernels import kernel


def nearest_covered(covered: Tensor) -> Tensor:
    """For each texel, the covered texel nearest to it.

    On a CPU two sweeps over the image carry the offsets along (Danielsson's sequential distance transform
    with eight neighbours), on a GPU jumps of falling length do (`flood`): exact but for rare texels where
    another is nearer by a fraction of a texel.

    Args:
        covered: bool [H, W], at least one of them true.

    Returns:
        flat indices row * W + column, int32 [H, W]; a covered texel's own index where it is one.
    """
    own = torch.arange(covered.numel(), dtype=torch.int32, device=covered.device).view(covered.shape)
    index = torch.where(covered, own, -1)
    if covered.device.type == "cuda":
        return flood(index)
    index = index.cpu().contiguous()
    _sweep(index.numpy())
    return index.to(covered.device)


def flood(index: Tensor) -> Tensor:
    """What `nearest_covered` gives, by jump flooding (Rong and Tan, 2006), with a first jump of one texel.

    Args:
        index: int32 [H, W], a covered texel's own flat index, -1 elsewhere.
    """
    height, width = index.shape
    row = torch.arange(height, device=index.device)[:, None]
    column = torch.arange(width, device=index.device)
    jump = 1 << (max(height, width) - 1).bit_length()
    jumps = [1]
    while jump > 1:
        jump //= 2
        jumps.append(jump)

    def distance(found: Tensor) -> Tensor:
        down, across = found // width - row, found % width - column
        return torch.where(found < 0, height**2 + width**2, down * down + across * across)

    for jump in jumps:
        around = F.pad(index, (jump,) * 4, value=-1)
        least = distance(index)
        for down in (0, jump, 2 * jump):
            for across in (0, jump, 2 * jump):
                found = around[down : down + height, across : across + width]
                far = distance(found)
                index = torch.where(far < least, found, index)
                least = torch.minimum(far, least)
    return index


@kernel
def _sweep(index):
    height, width = index.shape
    for turn in range(2):
        for step in range(height):
            row = step if turn == 0 else height - 1 - step
            back = row - 1 if turn == 0 else row + 1
            for way in range(2):
                # First with the sweep's previous row, then back along the row itself.
                for move in range(width):
                    column = move if way == 0 else width - 1 - move
                    side = column - 1 if way == 0 else column + 1
                    best = index[row, column]
                    least = _distance(best, row, column, width)
                    if 0 <= side < width:
                        found = index[row, side]
                        distance = _distance(found, row, column, width)
                        if distance < least:
                            best, least = found, distance
                    if way == 0 and 0 <= back < height:
                        for near in range(max(column - 1, 0), min(column + 2, width)):
                            found = index[back, near]
                            distance = _distance(found, row, column, width)
                            if distance < least:
                                best, least = found, distance
                    index[row, column] = best


@kernel
def _distance(found, row, column, width):
    if found < 0:
        return np.int64(1) << 60
    down, across = found // width - row, found % width - column
    return np.int64(down) * down + np.int64(across) * across
