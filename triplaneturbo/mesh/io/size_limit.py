"""Files of a limited size: images are reduced until the file is small enough."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import WRITERS, WriteOptions
from triplaneturbo.mesh.mesh import Mesh

# Quality of the images and the factor by which their sides are divided, from the best to the smallest.
REDUCTIONS = ((92, 1), (85, 1), (75, 1), (85, 2), (75, 2), (85, 4), (75, 8))


class LimitedFile(NamedTuple):
    """The bytes of a file, and a sentence on what was reduced; "" if nothing was."""

    data: bytes
    note: str


def encode_within(mesh: Mesh, format: str, options: WriteOptions, max_bytes: int) -> LimitedFile:
    """Encode a mesh in at most `max_bytes`, with the best images that fit.

    Raises:
        UserError: the geometry alone is larger, or the mesh or an option is invalid; see `encode`.
    """
    data = b""
    lossless = _lossless(mesh, options)
    factors = dict.fromkeys(factor for _, factor in REDUCTIONS)
    reductions = [(options.quality, factor) for factor in factors] if lossless else REDUCTIONS
    for quality, factor in reductions:
        smaller = _with_smaller_images(mesh, factor)
        data = WRITERS[format].write(smaller, replace(options, quality=quality))
        if len(data) <= max_bytes:
            lossy = "" if lossless else options.texture_format
            return LimitedFile(data, _note(format, smaller, lossy, quality, factor))
        if mesh.texture is None and mesh.normal_map is None:
            break
    raise UserError(
        f"The {format.upper()} takes {len(data)} bytes even with small textures, more than {max_bytes}; lower"
        " the number of faces, or allow a larger file."
    )


def _lossless(mesh: Mesh, options: WriteOptions) -> bool:
    """Whether the images of a GLB have no quality; with JPEG, normal maps are PNG images, too."""
    kind = options.texture_format
    return kind == "png" or (kind == "jpeg" and mesh.texture is None)


def _note(format: str, mesh: Mesh, lossy: str, quality: int, factor: int) -> str:
    """Return the sentence on a reduction.

    Args:
        lossy: texture format of the images that have a quality; "" if none has.
    """
    if factor == 1 and (not lossy or quality == REDUCTIONS[0][0]):
        return ""
    image = mesh.normal_map if mesh.texture is None else mesh.texture
    parts = [f"{lossy.partition('+')[0].upper()} images of quality {quality}"] if lossy else []
    parts += [f"textures of {image.shape[1]} pixels"] if image is not None else []
    return f"To stay within the size limit, the {format.upper()} has {', '.join(parts)}."


def _with_smaller_images(mesh: Mesh, factor: int) -> Mesh:
    def smaller(image: np.ndarray | None) -> np.ndarray | None:
        if image is None or factor == 1:
            return image
        size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))

    images = {"texture": smaller(mesh.texture), "normal_map": smaller(mesh.normal_map)}
    lods = tuple(level.replace(**images) for level in mesh.lods)
    return mesh.replace(lods=lods, **images)
