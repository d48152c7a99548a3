"""CPU z-buffer rasterization, compiled by numba.

Triangles are rasterized in homogeneous pixel coordinates (x*w, y*w, w), so that perspective needs no division
and triangles that cross the near plane need no clipping. The edge functions of two triangles are exact
negatives along their shared edge, so there are no gaps between triangles.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from triplaneturbo.utils.kernels import kernel


@kernel
def _draw_rows(pixels, faces, near, top, bottom, triangle, bary, depth):
    """Rasterize all faces into the rows [top, bottom) of one view; see `draw` for shapes."""
    width = triangle.shape[1]
    nearest = np.zeros((bottom - top, width))  # largest 1/w so far; 0 is infinite depth
    for face in range(faces.shape[0]):
        x0, y0, w0 = pixels[faces[face, 0]]
        x1, y1, w1 = pixels[faces[face, 1]]
        x2, y2, w2 = pixels[faces[face, 2]]
        if w0 <= near and w1 <= near and w2 <= near:
            continue
        left, right, low, high = 0, width - 1, top, bottom - 1
        if w0 > near and w1 > near and w2 > near:
            # Entirely in front of the near plane: use the bounding box. Otherwise use the whole image.
            least, most = min(y0 / w0, y1 / w1, y2 / w2), max(y0 / w0, y1 / w1, y2 / w2)
            if most < top or least > bottom:
                continue
            low = max(low, int(np.ceil(least - 0.5)))
            high = min(high, int(np.floor(most - 0.5)))
            least, most = min(x0 / w0, x1 / w1, x2 / w2), max(x0 / w0, x1 / w1, x2 / w2)
            if most < 0 or least > width:
                continue
            left = max(left, int(np.ceil(least - 0.5)))
            right = min(right, int(np.floor(most - 0.5)))
        # Edge functions a*x + b*y + c opposite corners 0, 1 and 2: cross products of the other two.
        a0, b0, c0 = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2, x1 * y2 - y1 * x2
        a1, b1, c1 = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0, x2 * y0 - y2 * x0
        a2, b2, c2 = y0 * w1 - w0 * y1, w0 * x1 - x0 * w1, x0 * y1 - y0 * x1
        volume = a0 * x0 + b0 * y0 + c0 * w0
        if volume == 0.0:
            continue
        sign = 1.0 if volume > 0.0 else -1.0
        volume = abs(volume)
        for row in range(low, high + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                e0 = sign * (a0 * x + b0 * y + c0)
                if e0 < 0.0:
                    continue
                e1 = sign * (a1 * x + b1 * y + c1)
                if e1 < 0.0:
                    continue
                e2 = sign * (a2 * x + b2 * y + c2)
                if e2 < 0.0:
                    continue
                total = e0 + e1 + e2
                closeness = total / volume  # 1/w
                if closeness * near < 1.0 and closeness > nearest[row - top, column]:
                    nearest[row - top, column] = closeness
                    triangle[row, column] = face
                    bary[row, column, 0] = e0 / total
                    bary[row, column, 1] = e1 / total
                    bary[row, column, 2] = e2 / total
                    depth[row, column] = 1.0 / closeness


def draw(
    pixels: np.ndarray, faces: np.ndarray, near: float, height: int, width: int, threads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterize a mesh into V views, without backface culling.

    Args:
        pixels: vertices in homogeneous pixel coordinates, float64 [V, N, 3]; see `Cameras.to_pixels`.
        faces: vertex indices, int64 [F, 3].
        near: depth of the near plane.
        height, width: image size in pixels.
        threads: number of threads, which process bands of rows; it does not affect the result.

    Returns:
        triangle [V, H, W] int64, -1 in the background (the first one wins at equal depth),
        perspective-correct barycentrics [V, H, W, 3] float64, and view depth [V, H, W] float64, both 0 in the
        background.
    """
    views = len(pixels)
    triangle = np.full((views, height, width), -1, np.int64)
    bary = np.zeros((views, height, width, 3))
    depth = np.zeros((views, height, width))
    # Plain threads (the kernel releases the GIL) instead of numba's: some of its threading layers do not
    # support calls from two threads at once.
    edges = np.linspace(0, height, min(threads, height) + 1).astype(int).tolist()
    bands = [(view, *band) for view in range(views) for band in itertools.pairwise(edges)]

    def work(job: tuple[int, int, int]) -> None:
        view, top, bottom = job
        _draw_rows(pixels[view], faces, near, top, bottom, triangle[view], bary[view], depth[view])

    if threads == 1:
        for job in bands:
            work(job)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, bands))
    return triangle, bary, depth
