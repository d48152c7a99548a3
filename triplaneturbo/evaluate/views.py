"""Views of an object for CLIP: unlit, framed by its bounding box, with a transparent background."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.protocols import ViewSettings
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import rasterize_view, resolve, scatter_pixels
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.colors import srgb_to_linear

RENDERER = 1  # version of the images that `render_views` makes; part of the key of stored views


def framed(mesh: Mesh, half_extent: float) -> Mesh:
    """Centre the bounding box of a mesh at the origin and scale its longest side to 2 * `half_extent`.

    Vertices without a face do not count. A mesh without extent is centred only.
    """
    used = mesh.vertices[mesh.faces.unique()]
    low, high = used.amin(0), used.amax(0)
    longest = float((high - low).max())
    scale = 2 * half_extent / longest if longest > 0 else 1.0
    return mesh.replace(vertices=(mesh.vertices - (low + high) / 2) * scale)


@torch.no_grad()
def render_views(mesh: Mesh, settings: ViewSettings) -> np.ndarray:
    """Render the views of a mesh: uint8 [V, size, size, 4], straight alpha.

    Args:
        mesh: in model space, on the CPU, with at least one face.
        settings: the views.
    """
    mesh = framed(mesh.replace(vertices=mesh.vertices.float(), normal_map=None), settings.half_extent)
    if mesh.normals is None:  # unused without light, but computed for every view if missing
        mesh = mesh.replace(normals=smooth_normals(mesh.vertices, mesh.faces))
    side = 2 * settings.size
    views = []
    for azimuth, elevation in settings.angles:
        view = rasterize_view(mesh, orbit(azimuth, elevation, settings.radius, settings.fovy), side, side)
        views.append(resolve(*scatter_pixels(srgb_to_linear(view.color), view.pixels), None))
    return np.stack(views)


def blank_views(settings: ViewSettings) -> np.ndarray:
    """Return the views of an empty result: transparent, uint8 [V, size, size, 4]."""
    return np.zeros((len(settings.angles), settings.size, settings.size, 4), dtype=np.uint8)


def on_background(views: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Composite views uint8 [V, H, W, 4] on a colour, in sRGB as image editors do: [V, H, W, 3]."""
    alpha = views[..., 3:].astype(np.float32) / 255
    rgb = views[..., :3] * alpha + np.asarray(background, dtype=np.float32) * (1 - alpha)
    return rgb.round().astype(np.uint8)


def encode_views(views: np.ndarray) -> bytes:
    """Encode views uint8 [V, H, W, 4] as one PNG, one view below the other."""
    return encode_image(views.reshape(-1, *views.shape[2:]), "png")


def decode_views(data: bytes, name: object) -> np.ndarray:
    """Decode the bytes of `encode_views` to uint8 [V, size, size, 4].

    Raises:
        UserError: the file `name` is damaged.
    """
    try:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    except (OSError, SyntaxError, ValueError):
        raise UserError(f"The stored views {name} are damaged; delete the file and run again.") from None
    return pixels.reshape(-1, pixels.shape[1], *pixels.shape[1:])
