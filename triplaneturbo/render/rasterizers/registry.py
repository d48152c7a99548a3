"""Registry of rasterizer backends. A new one is one new file in this folder and one line in `RASTERIZERS`."""

from __future__ import annotations

import torch

from triplaneturbo.render.rasterizers import numba_zbuffer, nvdiffrast_cuda, torch_zbuffer
from triplaneturbo.render.rasterizers.base import Rasterizer

# In order of preference: the first one that supports a device is used. The last one supports every device.
RASTERIZERS: dict[str, Rasterizer] = {
    backend.name: backend
    for backend in (
        Rasterizer("nvdiffrast", nvdiffrast_cuda.supports, nvdiffrast_cuda.rasterize),
        Rasterizer("torch", torch_zbuffer.supports, torch_zbuffer.rasterize),
        Rasterizer("numba", numba_zbuffer.supports, numba_zbuffer.rasterize),
    )
}


def choose_rasterizer(device: torch.device) -> Rasterizer:
    """Return the preferred backend for tensors on a device."""
    return next(backend for backend in RASTERIZERS.values() if backend.supports(device))
