"""Charts by xatlas: less distorted than those of box projection, but about a hundred times slower."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.box_projection import box_charts
from triplaneturbo.mesh.uv.charts import split_overlaps

# xatlas discards faces with an area below 1e-7 as degenerate, regardless of the mesh's size, which splits a
# fine mesh into hundreds of charts. Meshes are therefore scaled to this mean area of a face.
MEAN_AREA = 10.0


def xatlas_charts(
    faces: np.ndarray, corners: np.ndarray, neighbours: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the charts of a mesh with xatlas; its packing is not used (see packing.py).

    Args:
        faces: vertex indices, int32 [F, 3].
        corners: positions of the faces' corners, finite, float64 [F, 3, 3].
        neighbours: faces across edges, from `face_neighbours`, int32 [F, 3].
        slack: depth up to which overlaps are ignored.

    Returns:
        The positions of the corners in the planes of their charts, y downward, float64 [F, 3, 2]; and the
        chart of each face, int32 [F]. Charts do not overlap themselves. Faces that xatlas omits (of nearly no
        area) get separate charts.
    """
    import xatlas  # imported here, so that `fast` works without it

    used, local = np.unique(faces, return_inverse=True)
    local = local.reshape(-1)
    positions = np.zeros((len(used), 3))
    positions[local] = corners.reshape(-1, 3)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    scale = np.sqrt(MEAN_AREA / max(float(area.mean()), 1e-30))
    atlas = xatlas.Atlas()
    atlas.add_mesh((positions * scale).astype(np.float32), local.reshape(-1, 3).astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.resolution = 256  # its packing is not used, so make it fast
    packing.bilinear = False
    atlas.generate(xatlas.ChartOptions(), packing)
    _, index, positions_2d = atlas[0]

    uv = positions_2d.astype(np.float64)[index] * (atlas.width, -atlas.height)  # [F, 3, 2]
    chart = np.full(len(faces), -1, np.int32)
    for number in range(atlas.get_mesh_chart_count(0)):
        chart[np.asarray(atlas.get_mesh_chart(0, number).faces)] = number
    count = int(chart.max()) + 1
    omitted = np.flatnonzero(chart < 0)
    if count:
        _restore_areas(uv, chart, count, area)
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
