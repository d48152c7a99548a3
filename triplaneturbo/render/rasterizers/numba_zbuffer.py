"""Rasterizer backend on the CPU: the numba kernel of zbuffer.py, in double precision; for any device.

Compared with Embree (embreex), the images are the same, but a mesh of 80,000 faces at 512^2 takes about 9 ms
instead of 80 ms (2 cores; see `benchmarks/raster.py`). numba has wheels for Python 3.10 to 3.14 on Linux
(x86-64 and ARM), macOS and Windows; embreex has none for Linux on ARM. The kernel takes about 1 s to compile
on first use and is then cached on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizers.base import Fragments


def supports(device: torch.device) -> bool:
    """Return True: tensors of other devices are copied to the CPU and back."""
    return True


def rasterize(vertices: Tensor, faces: Tensor, cameras: Cameras, height: int, width: int) -> Fragments:
    """See `Rasterizer`."""
    # Double precision for any input: shared edges of triangles must be bit-identical.
    exact = Cameras(cameras.c2w.cpu().double(), cameras.fovy.cpu().double(), cameras.near, cameras.far)
    pixels = exact.to_pixels(vertices.detach().cpu().double(), height, width).contiguous()  # [V, N, 3]
    indices = faces.cpu().long().contiguous()
    triangle, bary, depth = zbuffer.draw(
        pixels.numpy(), indices.numpy(), exact.near, height, width, torch.get_num_threads()
    )
    like = {"device": vertices.device, "dtype": vertices.dtype}
    return Fragments(
        torch.from_numpy(triangle).to(vertices.device),
        torch.from_numpy(bary).to(**like),
        torch.from_numpy(depth).to(**like),
    )
