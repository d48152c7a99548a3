"""Pictures of an asset during its refinement."""

from __future__ import annotations

import torch

from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.refine.image_view import ELEVATION, views
from triplaneturbo.representations.base import Representation

_AZIMUTHS = [0.0, 90.0, 180.0, 270.0]
_GREY = 0.8


def picture(asset: Representation) -> bytes:
    """Render an asset from the front, left, back and right: the bytes of a PNG of four views in a row."""
    tiles = []
    for _, _, rendering in views(asset, _AZIMUTHS, ELEVATION):
        rgb = rendering.rgb[0, 0] + _GREY * (1 - rendering.opacity[0, 0, ..., None])  # [h, w, 3]
        tiles.append((rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
    return encode_image(sheet(tiles, columns=len(tiles)), "png")
