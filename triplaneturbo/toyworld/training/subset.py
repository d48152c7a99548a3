"""View cache of a few captions, rendered on demand, for fine-tuning.

The full cache (`scene/view_cache.py`) takes gigabytes and minutes on all cores. Here a caption takes about
two seconds and 20 MB, and the caller gets control after each instance.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np

from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import (
    RIGS,
    VIEWS,
    ViewCache,
    cache_cameras,
    draw_views,
    fingerprint,
)
from triplaneturbo.toyworld.training.pictures import shape_of
from triplaneturbo.utils.atomic_files import write_atomically

SolidKey = tuple[str, str, str]  # (class, shape, support)


def unique_solids(specs: Iterable[Spec]) -> list[SolidKey]:
    """Return the solids of the specs, each once."""
    return list(dict.fromkeys((spec.thing, shape_of(spec), spec.support) for spec in specs))


def draw_subset(folder: Path, specs: Iterable[Spec]) -> Iterator[str]:
    """Render the solids that are not yet in `folder`; yields the solid's name after each instance.

    Raises:
        UserError: the folder cannot be written.
    """
    cameras = cache_cameras()[: RIGS * VIEWS]
    for solid in unique_solids(specs):
        path = _path(folder, solid)
        if path.exists():
            continue
        drawn = []
        for index in range(INSTANCES):
            drawn.append(draw_views(*solid, index, cameras))
            yield " ".join(filter(None, (solid[1], solid[0], solid[2] and f"on {solid[2]}")))
        buffer = BytesIO()
        np.save(buffer, np.stack(drawn))
        write_atomically(path, buffer.getvalue())


class SubsetCache(ViewCache):
    """Read access to the views that `draw_subset` has rendered; they have the cameras of the rigs only."""

    def __init__(self, folder: Path, specs: Iterable[Spec]) -> None:
        self.cameras = cache_cameras()
        self._solids = {solid: np.load(_path(folder, solid), mmap_mode="r") for solid in unique_solids(specs)}

    def pixels(self, thing: str, shape: str, support: str, views: slice | list[int]) -> np.ndarray:
        """Return pixels like `ViewCache.pixels`."""
        return self._solids[thing, "" if support else shape, support][:, views]


def _path(folder: Path, solid: SolidKey) -> Path:
    thing, shape, support = solid
    number = zlib.crc32(f"{fingerprint((thing, support))} {shape}".encode())
    name = "-".join(filter(None, (shape, thing, support and f"on-{support}"))).replace(" ", "_")
    return folder / f"{name}-{number:08x}.npy"
