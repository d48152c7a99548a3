"""View cache: renderings of every solid of the toy world by a fixed set of cameras, stored on disk.

A rig holds four cameras at azimuths 90 degrees apart, with the same elevation and distance. Three more
cameras look along the axes; only the 2D training images use them. The cache of all solids takes about 4 GB
and some minutes on two cores. Only classes that have changed are rendered again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.solids import SHAPES, solid_of
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, see
from triplaneturbo.utils.atomic_files import write_atomically

SIZE = 128  # pixels per side
RIGS, VIEWS = 8, 4
FOV = 40.0  # degrees
NEAREST, FARTHEST = 2.4, 2.65
AXES = 3  # number of cameras along the axes: front, left, top
NOTHING_CODE = 15  # in the low half of a pixel's code

# One pixel: the low four bits of `code` hold the paint (15: background), the high four bits the pattern bits.
PIXEL = np.dtype([("code", "u1"), ("depth", "f2"), ("normal", "i1", (3,))])
Key = tuple[str, str]  # (class, ""), or (rider, support)


def cache_cameras() -> Cameras:
    """Return the 35 cameras of the cache: 8 rigs of 4 views each, then the three along the axes."""
    rig = np.arange(RIGS)
    # Low-discrepancy sequences: a few rigs cover azimuths, elevations and distances evenly.
    phase = np.mod(rig * 0.6180339887 + 0.1, 1.0)
    elevation = -20.0 + 70.0 * np.mod(rig * 0.7548776662 + 0.3, 1.0)
    distance = NEAREST + (FARTHEST - NEAREST) * np.mod(rig * 0.5698402910 + 0.5, 1.0)
    azimuth = (phase[:, None] + np.arange(VIEWS)) / VIEWS * 360.0
    return orbit(
        [*azimuth.ravel(), 0.0, 90.0, 0.0],
        [*np.repeat(elevation, VIEWS), 0.0, 0.0, 90.0],
        [*np.repeat(distance, VIEWS), 6.0, 6.0, 6.0],
        [FOV] * (RIGS * VIEWS) + [18.925] * AXES,
    )


class ViewCache:
    """Read access to the views that `make_view_cache` has rendered into a folder."""

    def __init__(self, folder: Path, keys: Iterable[Key]) -> None:
        """Open the files of `keys`.

        Raises:
            UserError: a file is missing.
        """
        self.cameras = cache_cameras()
        self._views: dict[Key, np.ndarray] = {}
        for key in keys:
            path = _path(folder, key)
            if not path.exists():
                raise UserError(
                    f"{folder} has no views of {' on '.join(filter(None, key))}: "
                    "run `python -m triplaneturbo.toyworld pool` first."
                )
            self._views[key] = np.load(path, mmap_mode="r")

    def pixels(self, thing: str, shape: str, support: str, views: slice | list[int]) -> np.ndarray:
        """Return the pixels of all six instances for some of the cameras: [6, V, 128, 128] of dtype PIXEL."""
        shapes = self._views[thing, support]
        return shapes[list(SHAPES).index(shape) if not support else 0][:, views]


def make_view_cache(
    folder: Path, keys: Iterable[Key], log: Callable[[str], None], processes: int = 2
) -> None:
    """Render the views of `keys` that are not yet in `folder`, in several processes.

    Args:
        log: called with a line of progress after each key.

    Raises:
        UserError: the folder cannot be written.
    """
    missing = [key for key in keys if not _path(folder, key).exists()]
    if not missing:
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as workers:
        futures = {workers.submit(_render, folder, key): key for key in missing}
        for count, future in enumerate(as_completed(futures), 1):
            if future.exception() is not None:
                workers.shutdown(cancel_futures=True)
            future.result()
            log(f"rendered {count} of {len(missing)}: {' on '.join(filter(None, futures[future]))}")


def _render(folder: Path, key: Key) -> None:
    """Render all shapes, instances and cameras of one key into its file: [S, 6, 35, 128, 128] of PIXEL."""
    torch.set_num_threads(1)
    thing, support = key
    cameras = cache_cameras()
    shapes = [""] if support else list(SHAPES)
    out = np.zeros((len(shapes), INSTANCES, len(cameras), SIZE, SIZE), dtype=PIXEL)
    for row, shape in enumerate(shapes):
        for index in range(INSTANCES):
            out[row, index] = draw_views(thing, shape, support, index, cameras)
    buffer = BytesIO()
    np.save(buffer, out)
    write_atomically(_path(folder, key), buffer.getvalue())


def draw_views(thing: str, shape: str, support: str, index: int, cameras: Cameras) -> np.ndarray:
    """Render an instance with every camera: [V, 128, 128] of PIXEL."""
    views = see(solid_of(thing, shape, support, index), cameras, SIZE)
    out = np.zeros(views.paint.shape, dtype=PIXEL)
    out["code"] = np.where(views.paint == NOTHING, NOTHING_CODE, views.paint | views.pattern << 4)
    out["depth"], out["normal"] = views.depth, views.normal
    return out


def _path(folder: Path, key: Key) -> Path:
    """Return the file of a key; its name contains the fingerprint, so outdated files are never used."""
    return folder / f"{'-on-'.join(filter(None, key)).replace(' ', '_')}-{fingerprint(key):08x}.npy"


def fingerprint(key: Key) -> int:
    """Return a checksum of the key's solids, the shapes and the cameras."""
    value = zlib.crc32(repr((SIZE, RIGS, FOV, NEAREST, FARTHEST, sorted(SHAPES.items()))).encode())
    for name in filter(None, key):
        for index in range(INSTANCES):
            value = zlib.crc32(OBJECT_CLASSES[name].instance(index).rows.tobytes(), value)
    return value
