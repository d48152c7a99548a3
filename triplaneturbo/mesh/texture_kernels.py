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


def local_normals(outward: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
    """Express gradients [N, 3] in tangent space; where they vanish, keep the vertex normals."""
    out = np.empty((len(outward), 3), np.float32)
    wanted, around, along = (part.detach().contiguous().numpy() for part in (outward, normals, tangents))

    def work(first: int, last: int) -> None:
        _local_normals(wanted[first:last], around[first:last], along[first:last], out[first:last])

    in_threads(work, len(out))
    return torch.from_numpy(out)


@kernel
def _local_normals(outward, normals, tangents, out):
    for texel in range(len(out)):
        n = _unit(normals[texel])
        t = _unit(tangents[texel])
        wanted = _unit(outward[texel])
        if _dot(outward[texel], outward[texel]) <= np.float32(1e-12):
            wanted = n
        side = np.sign(tangents[texel, 3])
        b = (
            side * (n[1] * t[2] - n[2] * t[1]),
            side * (n[2] * t[0] - n[0] * t[2]),
            side * (n[0] * t[1] - n[1] * t[0]),
        )
        tn, wt, wn = _dot(t, n), _dot(wanted, t), _dot(wanted, n)
        square = max(np.float32(1) - tn * tn, np.float32(1e-6))
        local = (
            (wt - tn * wn) / square,
            _dot(wanted, b) / max(_dot(b, b), np.float32(1e-12)),
            max((wn - tn * wt) / square, np.float32(0.05)),
        )
        out[texel, 0], out[texel, 1], out[texel, 2] = _unit(local)


@kernel
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel
def _unit(vector):
    length = max(np.sqrt(_dot(vector, vector)), np.float32(1e-12))
    return vector[0] / length, vector[1] / length, vector[2] / length


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
