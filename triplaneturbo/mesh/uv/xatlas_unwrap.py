"""Charts by xatlas: less distorted than those of box projection, but about a hundred times slower."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.library_charts import complete_charts, face_areas, indexed

# xatlas discards faces with an area below 1e-7 as degenerate, regardless of the mesh's size, which splits a
# fine mesh into hundreds of charts. Meshes are therefore scaled to this mean area of a face.
MEAN_AREA = 10.0


def xatlas_charts(
    faces: np.ndarray, corners: np.ndarray, neighbours: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the charts of a mesh with xatlas; arguments and result as of `box_projection.box_charts`.

    Its packing is not used (see packing.py). Faces that it omits (of nearly no area) get separate charts.
    """
    import xatlas  # imported here, so that the other methods work without it

    positions, index = indexed(faces, corners)
    scale = np.sqrt(MEAN_AREA / max(float(face_areas(corners).mean()), 1e-30))
    atlas = xatlas.Atlas()
    atlas.add_mesh((positions * scale).astype(np.float32), index)
    packing = xatlas.PackOptions()
    packing.resolution = 256  # its packing is not used, so make it fast
    packing.bilinear = False
    atlas.generate(xatlas.ChartOptions(), packing)
    _, index, positions_2d = atlas[0]

    uv = positions_2d.astype(np.float64)[index] * (atlas.width, -atlas.height)  # [F, 3, 2]
    chart = np.full(len(faces), -1, np.int32)
    for number in range(atlas.get_mesh_chart_count(0)):
        chart[np.asarray(atlas.get_mesh_chart(0, number).faces)] = number
    return complete_charts(uv, chart, faces, corners, neighbours, slack)
