"""The camera of a given picture, and renderings of an asset from several sides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from triplaneturbo.distill.reference_view import ReferenceView
from triplaneturbo.refine.given_image import GivenImage
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.base import Representation

AZIMUTHS = 24
ELEVATION = 15.0  # degrees, as most pictures of single objects are taken from slightly above
_DISTANCE, _FOV = 2.5, 40.0
_AT_ONCE = 4  # views per rendering
_SOLID = 0.5  # opacity from which a pixel shows the asset
_COLOR = 3.0  # weight of colours beside that of the outline


def match_view(asset: Representation, image: GivenImage, size: int) -> tuple[ReferenceView, float]:
    """Find the azimuth from which an asset looks most like a picture.

    The picture's own camera is unknown. The asset is rendered from all sides at a fixed elevation. Each time
    the picture is scaled and moved so that the object covers the rendered one, and compared.

    Args:
        asset: unchanged.
        image: the picture.
        size: side of the asset's images, in pixels.

    Returns:
        The view, with the picture as it is placed in it, and its azimuth in degrees.
    """
    azimuths = [360 * k / AZIMUTHS for k in range(AZIMUTHS)]
    best, found = float("inf"), None
    device = asset.device
    for azimuth, camera, rendering in views(asset, azimuths, ELEVATION):
        opacity = rendering.opacity[0, 0].cpu()
        rows, columns = ((opacity > _SOLID).any(axis).nonzero()[:, 0] for axis in (1, 0))
        if not len(rows):
            continue
        scale = size / len(opacity)  # the rendering may have a stride
        centre = (columns[0] + columns[-1] + 1) / 2, (rows[0] + rows[-1] + 1) / 2
        side = max(int(inside[-1] - inside[0]) + 1 for inside in (rows, columns))
        placed, mask = image.placed(len(opacity), (float(centre[0]), float(centre[1]), side))
        error = _difference(rendering.rgb[0, 0].cpu(), opacity, placed, mask)
        if error < best:
            best = error
            box = float(centre[0]) * scale, float(centre[1]) * scale, side * scale
            found = azimuth, camera, box
    if found is None:  # nothing is visible
        found = 0.0, _camera(0.0, ELEVATION, device), (size / 2, size / 2, 0.8 * size)
    azimuth, camera, box = found
    rgb, opacity = image.placed(size, box)
    return ReferenceView(camera, rgb.to(device), opacity.to(device)), azimuth


@torch.no_grad()
def views(
    asset: Representation, azimuths: list[float], elevation: float
) -> Iterator[tuple[float, Cameras, Renderings]]:
    """Render an asset on black from several azimuths: yield each with its camera and rendering [1, 1, ...].

    Of several renderings, the last one is used: that of the surface, where there is one.
    """
    rng = torch.Generator().manual_seed(0)
    for start in range(0, len(azimuths), _AT_ONCE):
        some = azimuths[start : start + _AT_ONCE]
        cameras = orbit(some, elevation, _DISTANCE, _FOV).to(asset.device)
        scenes = SceneBatch([""], cameras, len(some), torch.zeros(1, 3, device=asset.device))
        rendering = list(asset.render(scenes, rng).renderings.values())[-1]
        for view, azimuth in enumerate(some):
            rgb, opacity = rendering.rgb[:, view : view + 1], rendering.opacity[:, view : view + 1]
            yield azimuth, cameras[view], Renderings(rgb, opacity)


def _camera(azimuth: float, elevation: float, device: torch.device) -> Cameras:
    return orbit(azimuth, elevation, _DISTANCE, _FOV).to(device)


def _difference(rgb: Tensor, opacity: Tensor, placed: Tensor, mask: Tensor) -> float:
    """Compare colours on black [H, H, 3] and outlines [H, H] of two images, relative to their union."""
    outline = (opacity - mask).square().sum()
    color = (rgb - placed).square().mean(-1).sum()
    return float((outline + _COLOR * color) / torch.maximum(opacity, mask).sum().clamp_min(1))
