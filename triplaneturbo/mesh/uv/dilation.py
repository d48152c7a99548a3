"""Texture dilation: the nearest covered texel of every texel, to fill the gaps of an atlas."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.utils.kernels import kernel


def nearest_covered(covered: Tensor) -> Tensor:
    """Return the nearest covered texel of each texel.

    On a CPU this is Danielsson's sequential distance transform (two sweeps over the image that propagate
    offsets between eight neighbours), on a GPU jump flooding (`jump_flood`). Both are exact except at rare
    texels, where a covered texel is returned that is farther by a fraction of a texel.

    Args:
        covered: bool [H, W], at least one of them true.

    Returns:
        flat indices row * W + column, int32 [H, W]; a covered texel has its own index.
    """
    own = torch.arange(covered.numel(), dtype=torch.int32, device=covered.device).view(covered.shape)
    index = torch.where(covered, own, -1)
    if covered.device.type == "cuda":
        return jump_flood(index)
    index = index.cpu().contiguous()
    _sweep(index.numpy())
    return index.to(covered.device)


def jump_flood(index: Tensor) -> Tensor:
    """Compute `nearest_covered` by jump flooding (Rong and Tan, 2006), with an additional first jump of 1.

    Args:
        index: int32 [H, W], flat index of each covered texel, -1 elsewhere.
    """
    height, width = index.shape
    row = torch.arange(height, device=index.device)[:, None]
    column = torch.arange(width, device=index.device)
    jump = 1 << (max(height, width) - 1).bit_length()
    steps = [1]
    while jump > 1:
        jump //= 2
        steps.append(jump)

    def distance(candidate: Tensor) -> Tensor:
        down, across = candidate // width - row, candidate % width - column
        return torch.where(candidate < 0, height**2 + width**2, down * down + across * across)

    for jump in steps:
        around = F.pad(index, (jump,) * 4, value=-1)
        best_distance = distance(index)
        for down in (0, jump, 2 * jump):
            for across in (0, jump, 2 * jump):
                candidate = around[down : down + height, across : across + width]
                candidate_distance = distance(candidate)
                index = torch.where(candidate_distance < best_distance, candidate, index)
                best_distance = torch.minimum(candidate_distance, best_distance)
    return index


@kernel
def _sweep(index):
    height, width = index.shape
    for turn in range(2):
        for step in range(height):
            row = step if turn == 0 else height - 1 - step
            back = row - 1 if turn == 0 else row + 1
            for way in range(2):
                # First compare with the sweep's previous row, then sweep back along the row itself.
                for move in range(width):
                    column = move if way == 0 else width - 1 - move
                    side = column - 1 if way == 0 else column + 1
                    best = index[row, column]
                    if best == row * width + column:  # covered
                        continue
                    best_distance = _distance(best, row, column, width)
                    if 0 <= side < width:
                        candidate = index[row, side]
                        distance = _distance(candidate, row, column, width)
                        if distance < best_distance:
                            best, best_distance = candidate, distance
                    if way == 0 and 0 <= back < height:
                        for near in range(max(column - 1, 0), min(column + 2, width)):
                            candidate = index[back, near]
                            distance = _distance(candidate, row, column, width)
                            if distance < best_distance:
                                best, best_distance = candidate, distance
                    index[row, column] = best


@kernel
def _distance(candidate, row, column, width):
    if candidate < 0:
        return np.int64(1) << 60
    down, across = candidate // width - row, candidate % width - column
    return np.int64(down) * down + np.int64(across) * across
