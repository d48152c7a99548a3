"""Charts by uvunwrap: evener than those of xatlas, and several times faster. Needs Python 3.11."""

from __future__ import annotations

import numpy as np

from triplaneturbo.mesh.uv.library_charts import complete_charts, face_areas, indexed

# Meshes are scaled to this total area, so that the result does not depend on their size.
AREA = 4.0


def uvunwrap_charts(
    faces: np.ndarray, corners: np.ndarray, neighbours: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the charts of a mesh with uvunwrap; arguments and result as of `box_projection.box_charts`.

    Its packing is not used (see packing.py). Faces that it omits get separate charts.
    """
    import uvunwrap  # imported here, so that the other methods work without it

    positions, index = indexed(faces, corners)
    scale = np.sqrt(AREA / max(float(face_areas(corners).sum()), 1e-30))
    mesh = uvunwrap.Mesh((positions * scale).astype(np.float32), index)
    # One page that grows; its packing is not used, so make it fast.
    atlas = uvunwrap.generate([mesh], page_size=None, texels_per_unit=300.0, packing="fast")
    (found,) = atlas.meshes
    uv = np.array(found.corner_uvs, np.float64).reshape(-1, 3, 2) * (atlas.width, -atlas.height)
    chart = np.array(found.chart, np.int32)[np.asarray(found.indices).reshape(-1, 3)[:, 0]]
    return complete_charts(uv, chart, faces, corners, neighbours, slack)
