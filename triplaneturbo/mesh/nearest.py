"""The nearest covered texel of every texel: how a texture is spread over the gaps of its atlas."""

from __future__ import annotations

import numpy as np

from triplaneturbo.kernels import kernel


def nearest_covered(covered: np.ndarray) -> np.ndarray:
    """For each texel, the covered texel nearest to it.

    Two sweeps over the image carry the offsets along (Danielsson's sequential distance transform with eight
    neighbours): exact but for rare texels where another is nearer by a fraction of a texel.

    Args:
        covered: bool [H, W], at least one of them true.

    Returns:
        flat indices row * W + column, int32 [H, W]; a covered texel's own index where it is one.
    """
    height, width = covered.shape
    index = np.where(covered, np.arange(height * width, dtype=np.int32).reshape(height, width), -1)
    index = np.ascontiguousarray(index, dtype=np.int32)
    _sweep(index)
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
