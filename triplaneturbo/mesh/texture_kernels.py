"""Compiled loops over the texels of an atlas on a CPU; texture.py has their twins in torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.uv.atlas import Atlas
from triplaneturbo.utils.kernels import kernel
from triplaneturbo.utils.threads import in_threads


def interpolate(attribute: Tensor, faces: Tensor, atlas: Atlas) -> Tensor:
    """Interpolate a vertex attribute [V, C] at the surface points of the atlas' texels: float32 [N, C]."""
    out = np.empty((len(atlas.face), attribute.shape[1]), np.float32)
    values, corners = attribute.detach().float().contiguous().numpy(), faces.contiguous().numpy()
    face, bary = atlas.face.numpy(), atlas.bary.numpy()

    def work(first: int, last: int) -> None:
        _interpolate(values, corners, face[first:last], bary[first:last], out[first:last])

    in_threads(work, len(face))
    return torch.from_numpy(out)


def fill_image(values: Tensor, atlas: Atlas) -> np.ndarray:
    """Write values in [0, 1] [N, 3] of the atlas' texels to an image, uint8 [H, W, 3], and fill its gaps."""
    image = np.zeros((*atlas.nearest.shape, 3), np.uint8)
    _fill(
        values.detach().float().contiguous().numpy(),
        atlas.texels.numpy(),
        atlas.nearest.numpy().reshape(-1),
        image.reshape(-1, 3),
    )
    return image


@kernel
def _interpolate(attribute, faces, face, bary, out):
    for texel in range(len(face)):
        a, b, c = faces[face[texel], 0], faces[face[texel], 1], faces[face[texel], 2]
        for channel in range(out.shape[1]):
            out[texel, channel] = (
                attribute[a, channel] * bary[texel, 0]
                + attribute[b, channel] * bary[texel, 1]
                + attribute[c, channel] * bary[texel, 2]
            )


@kernel
def _fill(values, texels, nearest, image):
    for texel in range(len(texels)):
        for channel in range(3):
            value = min(max(values[texel, channel], np.float32(0)), np.float32(1))
            image[texels[texel], channel] = np.uint8(np.rint(value * np.float32(255)))
    for place in range(len(nearest)):
        if nearest[place] != place:
            for channel in range(3):
                image[place, channel] = image[nearest[place], channel]
