"""Conversions between this package and libraries that compute charts."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.box_projection import box_charts
from triplaneturbo.mesh.uv.charts import split_overlaps


def face_areas(corners: np.ndarray) -> np.ndarray:
    """Return the areas [F] of faces with corners [F, 3, 3]."""
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def indexed(faces: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the used vertices: positions, float64 [V, 3], and faces that index them, uint32 [F, 3].

    Args:
        faces: vertex indices, int32 [F, 3].
        corners: positions of the faces' corners, float64 [F, 3, 3].
    """
    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(-1)
    positions = np.zeros((len(used), 3))
    positions[local] = corners.reshape(-1, 3)
    return positions, local.reshape(-1, 3).astype(np.uint32)


def complete_charts(
    uv: np.ndarray,
    chart: np.ndarray,
    faces: np.ndarray,
    corners: np.ndarray,
    neighbours: np.ndarray,
    slack: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a library's charts into charts that `pack` accepts.

    Charts get the area of their faces, mirrored ones are flipped, faces without a chart get separate ones by
    box projection, and charts that overlap themselves are split.

    Args:
        uv: positions of the corners in the planes of their charts, y downward, float64 [F, 3, 2]; modified.
        chart: chart of each face, int32 [F], -1 for none; modified.
        faces, corners, neighbours, slack: as in `box_charts`.

    Returns:
        The positions of the corners, float64 [F, 3, 2], and the chart of each face, int32 [F].
    """
    count = int(chart.max()) + 1
    omitted = np.flatnonzero(chart < 0)
    if count:
        _restore_areas(uv, chart, count, face_areas(corners))
    if len(omitted):
        inside = np.full(len(faces) + 1, -1, np.int32)
        inside[omitted] = np.arange(len(omitted))
        uv[omitted], apart = box_charts(faces, corners[omitted], inside[neighbours[omitted]], slack)
        chart[omitted] = count + apart
    return uv, split_overlaps(uv, chart, neighbours, np.zeros(len(faces)), slack)


def _restore_areas(uv: np.ndarray, chart: np.ndarray, count: int, area: np.ndarray) -> None:
    """Scale charts to the area of their faces and flip mirrored ones; modifies `uv` in place."""
    known = chart >= 0
    edge1, edge2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    signed = (edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]) / 2
    sums = np.bincount(chart[known], signed[known], count)
    true = np.bincount(chart[known], area[known], count)
    # Faces are counter-clockwise seen from outside, which is a negative area where y points down.
    factor = np.sqrt(true / np.maximum(np.abs(sums), 1e-300))[:, None] * np.where(
        sums[:, None] > 0, (-1.0, 1.0), (1.0, 1.0)
    )
    uv[known] *= factor[chart[known]][:, None]
