"""Ground truth of a caption: its six instances, their occupancy and their renderings."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.solid import Solid
from triplaneturbo.toyworld.scene.solids import solid_of
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, Views, colors, mesh, pattern_bits, see
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.training.pictures import shape_of

VOXELS = 64  # along each side of [-1, 1]^3
SIZE = 128  # pixels per side of the scored views
_BLOCK = 8  # voxels per side of the largest block


def score_cameras() -> Cameras:
    """Return the eight cameras for comparing silhouettes and colours; the view cache has none of them."""
    return orbit([22.5 + 45.0 * k for k in range(8)], [6.0, 29.0] * 4, 2.5, 40.0)


def instance(spec: Spec, index: int) -> Solid:
    """Return the placed solid of one instance of a spec."""
    return solid_of(spec.thing, shape_of(spec), spec.support, index)


def occupancy(spec: Spec) -> np.ndarray:
    """Return the occupancy of all instances of a spec: bool [6, 64, 64, 64], indexed [instance, x, y, z]."""
    return np.stack([_voxels(spec.thing, shape_of(spec), spec.support, i) for i in range(INSTANCES)])


@lru_cache(maxsize=256)
def _voxels(thing: str, shape: str, support: str, index: int) -> np.ndarray:
    return voxelize(solid_of(thing, shape, support, index))


def voxelize(solid: Solid, size: int = VOXELS) -> np.ndarray:
    """Return the voxels whose centres are inside a solid: bool [size, size, size].

    Blocks that the surface cannot reach are decided as a whole.

    Args:
        size: voxels per side of [-1, 1]^3; a multiple of 8.
    """
    out = np.zeros((size, size, size), dtype=bool)
    eight = np.argwhere(np.ones((2, 2, 2), dtype=bool))
    at, block = np.argwhere(np.ones((size // _BLOCK,) * 3, dtype=bool)), _BLOCK
    while block > 1:
        distance = solid.distance((at + 0.5) * (2 * block / size) - 1)
        # The block's full diagonal instead of half of it: some primitives' distances are first-order only.
        sure = np.abs(distance) > 2 * np.sqrt(3) * block / size
        x, y, z = at[sure & (distance < 0)].T
        out.reshape((size // block, block) * 3)[x, :, y, :, z, :] = True
        at, block = (2 * at[~sure][:, None] + eight).reshape(-1, 3), block // 2
    out[tuple(at.T)] = solid.distance((at + 0.5) * (2 / size) - 1) <= 0
    return out


def score_views(spec: Spec, index: int) -> tuple[Tensor, Tensor]:
    """Render an instance with `score_cameras`: coverage [8, 128, 128], unlit colours [8, 128, 128, 3]."""
    views = _views(spec.thing, shape_of(spec), spec.support, index)
    return torch.from_numpy(views.paint != NOTHING), torch.from_numpy(
        _color_table(spec)[views.pattern, views.paint]
    )


def score_normals(spec: Spec, index: int) -> np.ndarray:
    """Return the unit normals of an instance in the views of `score_views`: [8, 128, 128, 3]."""
    return _views(spec.thing, shape_of(spec), spec.support, index).normal / np.float32(127)


@lru_cache(maxsize=64)
def _views(thing: str, shape: str, support: str, index: int) -> Views:
    return see(solid_of(thing, shape, support, index), score_cameras(), SIZE)


def generated(spec: Spec, index: int) -> Generated:
    """Return an instance as the result of a perfect model."""
    solid, table = instance(spec, index), _color_table(spec)
    surface = Mesh(*mesh(solid))

    def rgb(points: Tensor) -> Tensor:
        at = points.double().cpu().numpy()
        return torch.from_numpy(table[pattern_bits(at), solid.paints(at)])

    return Generated(surface, surface, rgb)


def _color_table(spec: Spec) -> np.ndarray:
    """Return the colours of a spec by pattern bits and paint: [8, 256, 3]."""
    return colors(spec.color, spec.support_color or spec.accent, spec.modifier)
