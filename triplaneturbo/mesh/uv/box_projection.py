"""Charts by box projection: each face is projected along one of the six axis directions."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.charts import components, group_faces, split_overlaps
from triplaneturbo.utils.kernels import kernel

# Side k is seen along -AXES[k], with RIGHT[k] pointing right and UP[k] pointing up (right x up = axis).
AXES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)
UP = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]], np.float64)
RIGHT = np.cross(UP, AXES)

SMOOTHNESS = 0.6  # weight of agreement with the neighbours, relative to facing the side
MIN_COSINE = 0.35  # minimum cosine between a face's normal and its axis: limits shrinking to a third
MIN_COSINE_ROUGH = 0.12  # the same, if there are MANY_CHARTS
MANY_CHARTS = 400
TINY_CHART = 1e-3  # charts below this fraction of the total area are merged into a neighbour


@kernel
def _smooth_sides(side, cosine, neighbours, weight, sweeps):
    """Let each face in turn choose its best side; modifies `side`.

    The score of a side is the cosine to its axis plus the weights of the neighbours that have this side.
    """
    score = np.empty(6)
    for _ in range(sweeps):
        changed = False
        for face in range(side.shape[0]):
            for s in range(6):
                score[s] = cosine[face, s]
            for k in range(3):
                other = neighbours[face, k]
                if other >= 0:
                    score[side[other]] += weight[face, k]
            best = side[face]
            for s in range(6):
                if cosine[face, s] >= MIN_COSINE and score[s] > score[best] + 1e-9:
                    best = s
            if best != side[face]:
                side[face] = best
                changed = True
        if not changed:
            break


@kernel
def _merge_tiny_charts(key, side, chart, start, order, neighbours, weight, area, cosine, tiny, least):
    """Merge each chart smaller than `tiny` into the neighbour with which it shares the longest boundary.

    All its faces must have a cosine of at least `least` to the neighbour's side. Modifies `key` and `side`;
    returns the number of merged charts.
    """
    charts = start.shape[0] - 1
    size = np.zeros(charts)
    for face in range(chart.shape[0]):
        size[chart[face]] += area[face]
    shared = np.zeros(charts)
    moved = 0
    for c in np.argsort(size, kind="mergesort"):
        if size[c] >= tiny:
            break
        members = order[start[c] : start[c + 1]]
        touching = np.empty(3 * members.shape[0], np.int32)
        count = 0
        for face in members:
            for k in range(3):
                other = neighbours[face, k]
                if other >= 0 and chart[other] != c:
                    if shared[chart[other]] == 0.0:
                        touching[count] = other
                        count += 1
                    shared[chart[other]] += weight[face, k] + 1e-12
        best = -1
        most = 0.0
        for i in range(count):
            rim = shared[chart[touching[i]]]
            if rim > most and size[chart[touching[i]]] > size[c]:
                seen = True
                for face in members:
                    seen &= cosine[face, side[touching[i]]] >= least
                if seen:
                    best, most = touching[i], rim
        for i in range(count):
            shared[chart[touching[i]]] = 0.0
        if best >= 0:
            for face in members:
                key[face] = key[best]
                side[face] = side[best]
            moved += 1
    return moved


@kernel
def _measure(corners, axes):
    """Return areas [F], edge lengths [F, 3] and cosines between normals and sides [F, 6] of faces."""
    count = corners.shape[0]
    area = np.empty(count)
    length = np.empty((count, 3))
    cosine = np.empty((count, 6))
    edge = np.empty((3, 3))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for face in range(count):
        for k in range(3):
            for i in range(3):
                edge[k, i] = corners[face, (k + 1) % 3, i] - corners[face, k, i]
                low[i] = min(low[i], corners[face, k, i])
                high[i] = max(high[i], corners[face, k, i])
            length[face, k] = np.sqrt(edge[k, 0] ** 2 + edge[k, 1] ** 2 + edge[k, 2] ** 2)
        x = edge[0, 1] * edge[1, 2] - edge[0, 2] * edge[1, 1]
        y = edge[0, 2] * edge[1, 0] - edge[0, 0] * edge[1, 2]
        z = edge[0, 0] * edge[1, 1] - edge[0, 1] * edge[1, 0]
        double = np.sqrt(x * x + y * y + z * z)
        area[face] = double / 2
        for s in range(6):
            cosine[face, s] = (x * axes[s, 0] + y * axes[s, 1] + z * axes[s, 2]) / max(double, 1e-300)
    for face in range(count):
        if 2 * area[face] <= 1e-12 * np.max(high - low) ** 2:
            cosine[face] = 1.0  # any side suits a face without area
    return area, length, cosine


@kernel
def _project(corners, side, axes, right, up):
    """Project faces to their sides: positions, y downward [F, 3, 2], and heights above the plane [F].

    The heights are sums over the three corners: only their order matters.
    """
    uv = np.empty((corners.shape[0], 3, 2))
    height = np.zeros(corners.shape[0])
    for face in range(corners.shape[0]):
        s = side[face]
        for k in range(3):
            uv[face, k] = 0.0
            for i in range(3):
                uv[face, k, 0] += corners[face, k, i] * right[s, i]
                uv[face, k, 1] -= corners[face, k, i] * up[s, i]
                height[face] += corners[face, k, i] * axes[s, i]
    return uv, height


def box_charts(
    faces: np.ndarray, corners: np.ndarray, neighbours: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the charts of a mesh by box projection.

    Args:
        faces: vertex indices, int32 [F, 3] (unused: `neighbours` holds the connectivity).
        corners: positions of the faces' corners, finite, float64 [F, 3, 3].
        neighbours: faces across edges, from `face_neighbours`, int32 [F, 3].
        slack: depth up to which overlaps are ignored.

    Returns:
        The positions of the corners in the planes of their charts, y downward, float64 [F, 3, 2], in the
        unit of the mesh; and the chart of each face, int32 [F]. No face with an area is flipped, and charts
        do not overlap themselves.
    """
    area, length, cosine = _measure(corners, AXES)
    weight = length * (3 * SMOOTHNESS / np.maximum(length @ np.ones(3), 1e-300))[:, None]
    side = cosine.argmax(1).astype(np.int8)
    _smooth_sides(side, cosine, neighbours, weight, 8)
    chart = components(side, neighbours)
    tiny = TINY_CHART * float(area.sum())
    chart = _merge_rounds(chart, side, neighbours, length, area, cosine, tiny, MIN_COSINE)
    if int(chart.max()) >= MANY_CHARTS:  # a rough surface: prefer more distortion to many small charts
        chart = _merge_rounds(chart, side, neighbours, length, area, cosine, tiny, MIN_COSINE_ROUGH)
    uv, height = _project(corners, side, AXES, RIGHT, UP)
    return uv, split_overlaps(uv, chart, neighbours, height, slack)


def _merge_rounds(
    chart: np.ndarray,
    side: np.ndarray,
    neighbours: np.ndarray,
    length: np.ndarray,
    area: np.ndarray,
    cosine: np.ndarray,
    tiny: float,
    least: float,
) -> np.ndarray:
    """Merge tiny charts until none is left that can be merged, in at most four rounds."""
    for _ in range(4):
        start, order = group_faces(chart, int(chart.max()) + 1)
        key = chart.copy()
        moved = _merge_tiny_charts(
            key, side, chart, start, order, neighbours, length, area, cosine, tiny, least
        )
        if moved == 0:
            break
        chart = components(key, neighbours)
    return chart
