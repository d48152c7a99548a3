"""Pictures of a mesh: thumbnails, turntables, contact sheets; no window and no GPU needed.

Light is added up linearly and encoded as sRGB at the end. The lights hang on the camera, as in a studio, and
their sum on a surface that faces the camera is close to 1: colours look as they were authored.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals
from triplaneturbo.render.cameras import Cameras, frame
from triplaneturbo.render.colors import linear_to_srgb, sample, srgb_to_linear
from triplaneturbo.render.rasterizer import rasterize

AZIMUTH, ELEVATION, FOVY = 30.0, 20.0, 30.0  # a three-quarter view of the front (+x), slightly from above
WHITE = (255, 255, 255)
PLAIN = 0.75  # sRGB grey of a mesh without colours

# Directional lights, in camera axes (x right, y up, z toward the viewer), and how strong they are.
_KEY, _KEY_POWER = (-0.45, 0.65, 0.62), 0.62
_FILL, _FILL_POWER = (0.75, 0.10, 0.65), 0.20
_SKY, _GROUND = 0.48, 0.22  # light from above and from below, from everywhere
_GLOSS, _GLOSS_EXPONENT = 0.05, 24.0


def render(
    mesh: Mesh,
    camera: Cameras,
    size: int | tuple[int, int] = 256,
    background: tuple[int, int, int] | None = WHITE,
) -> np.ndarray:
    """A picture of a mesh, softly lit, smoothed by rendering at twice the size.

    Args:
        mesh: with a texture, vertex colours, or neither (then grey); a normal map is used if there is one.
        camera: one view.
        size: the picture's side, or (height, width).
        background: sRGB bytes, or None for a transparent one.

    Returns:
        uint8 [H, W, 3], or [H, W, 4] with a transparent background (straight, not premultiplied, alpha).

    Raises:
        UserError: a size outside 1 .. 4096.
        ValueError: other than one view.
    """
    height, width = sides(size)
    if len(camera) != 1:
        raise ValueError(f"one view at a time, not {len(camera)}")
    with torch.no_grad():
        light, covered = _shade(mesh, camera, 2 * height, 2 * width)
        return develop(light, covered, background)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a picture, if it can be made; else UserError."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise UserError(f"A picture cannot be {width} x {height} pixels; choose sides from 1 to 4096.")
    return height, width


class RenderedView(NamedTuple):
    """What one view sees of a mesh at the P pixels that it covers.

    Attributes:
        pixels: which these are, bool [H, W].
        triangle: the face at each [P].
        color: sRGB in [0, 1] [P, 3].
        normal: unit normals in world axes, bent by the normal map if there is one [P, 3].
        position: in world axes [P, 3].
    """

    pixels: Tensor
    triangle: Tensor
    color: Tensor
    normal: Tensor
    position: Tensor


def see(mesh: Mesh, camera: Cameras, height: int, width: int) -> RenderedView:
    """Look at a mesh with one camera."""
    vertices, faces = mesh.vertices.float(), mesh.faces
    if len(faces) == 0:
        nothing = vertices.new_zeros(0, 3)
        off = torch.zeros(height, width, dtype=torch.bool, device=vertices.device)
        return RenderedView(off, faces.new_zeros(0), nothing, nothing, nothing)
    raster = rasterize(vertices, faces, camera, height, width)
    pixels = raster.mask[0]
    bary = raster.bary[0][pixels]  # [P, 3]
    triangle = raster.triangle[0][pixels]  # [P]
    corners = faces[triangle]  # [P, 3]

    def at_pixels(attributes: Tensor) -> Tensor:
        """Vertex attributes [V, C] at the covered pixels [P, C]."""
        a, b, c = corners.unbind(1)
        values = attributes.float()
        return values[a] * bary[:, :1] + values[b] * bary[:, 1:2] + values[c] * bary[:, 2:]

    normals = mesh.normals if mesh.normals is not None else smooth_normals(vertices, faces)
    normal = F.normalize(at_pixels(normals), dim=1)
    uv = None if mesh.uv is None else at_pixels(mesh.uv)
    if uv is not None and mesh.normal_map is not None and mesh.tangents is not None:
        normal = _bumped(normal, at_pixels(mesh.tangents), _image(mesh.normal_map, vertices), uv)
    if uv is not None and mesh.texture is not None:
        color = sample(_image(mesh.texture, vertices), uv)
    elif mesh.colors is not None:
        color = at_pixels(mesh.colors).clamp(0, 1)
    else:
        color = torch.full_like(normal, PLAIN)
    return RenderedView(pixels, triangle, color, normal, at_pixels(vertices))


def _shade(mesh: Mesh, camera: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Linear light [H, W, 3], 0 off the mesh, and where the mesh is [H, W] (0 or 1)."""
    camera = camera.to(mesh.vertices.device).to(torch.float32)
    seen = see(mesh, camera, height, width)
    axes = camera.c2w[0, :3, :3]
    position = camera.to_camera(seen.position)[0]  # [P, 3]
    light = _studio(
        srgb_to_linear(seen.color), seen.normal @ axes, -F.normalize(position, dim=1), (axes.T)[:, 2]
    )
    return spread(light, seen.pixels)


def spread(light: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Light [P, 3] of the covered pixels as an image [H, W, 3], 0 elsewhere, and the coverage [H, W]."""
    image = light.new_zeros(*pixels.shape, 3)
    image[pixels] = light
    return image, pixels.to(light.dtype)


def _studio(color: Tensor, normal: Tensor, toward_eye: Tensor, up: Tensor) -> Tensor:
    """Light [P, 3] from a surface.

    Args:
        color: linear [P, 3].
        normal, toward_eye, up: unit vectors in camera axes, [P, 3], [P, 3] and [3].
    """
    # Both sides of a face are lit: the inside of an open surface is a surface too.
    facing = (normal * toward_eye).sum(1, keepdim=True)
    normal = torch.where(facing < 0, -normal, normal)
    height = 0.5 + 0.5 * (normal @ up)[:, None]
    diffuse = _GROUND + (_SKY - _GROUND) * height
    gloss = torch.zeros_like(diffuse)
    for direction, power in ((_KEY, _KEY_POWER), (_FILL, _FILL_POWER)):
        light = F.normalize(normal.new_tensor(direction), dim=0)
        diffuse = diffuse + power * (normal @ light)[:, None].clamp_min(0)
        halfway = F.normalize(light + toward_eye, dim=1)
        gloss = gloss + power * (normal * halfway).sum(1, keepdim=True).clamp_min(0) ** _GLOSS_EXPONENT
    return color * diffuse + _GLOSS * gloss


def _bumped(normal: Tensor, tangent: Tensor, normal_map: Tensor, uv: Tensor) -> Tensor:
    """Normals [P, 3] bent by a tangent-space normal map [H, W, 3] read at uv [P, 2]."""
    bend = sample(normal_map, uv) * 2 - 1
    along = tangent[:, :3]
    along = F.normalize(along - normal * (along * normal).sum(1, keepdim=True), dim=1)
    across = torch.linalg.cross(normal, along) * tangent[:, 3:].sign()
    return F.normalize(bend[:, :1] * along + bend[:, 1:2] * across + bend[:, 2:] * normal, dim=1)


def _image(pixels: np.ndarray, like: Tensor) -> Tensor:
    """Bytes [H, W, 3] as numbers from 0 to 1 on the device of `like`."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(like.device).float() / 255


def develop(light: Tensor, covered: Tensor, background: tuple[int, int, int] | None) -> np.ndarray:
    """Average 2 x 2 pixels of light [2H, 2W, 3] and coverage [2H, 2W], and lay them on the background."""
    both = torch.cat((light.clamp(0, 1), covered[..., None]), dim=-1).permute(2, 0, 1)[None]
    both = F.avg_pool2d(both, 2)[0].permute(1, 2, 0)  # [H, W, 4]
    light, alpha = both[..., :3], both[..., 3:]
    if background is None:
        rgb = linear_to_srgb(light / alpha.clamp_min(1e-6))
        picture = torch.cat((rgb, alpha), dim=-1)
    else:
        behind = srgb_to_linear(light.new_tensor(background) / 255)
        picture = linear_to_srgb(light + (1 - alpha) * behind)
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def thumbnail(mesh: Mesh, size: int = 256, background: tuple[int, int, int] | None = WHITE) -> np.ndarray:
    """The mesh in a three-quarter view from slightly above, filling the picture; see `render`."""
    return render(mesh, frame(mesh.vertices, AZIMUTH, ELEVATION, FOVY), size, background)


def turntable(
    mesh: Mesh, frames: int = 24, size: int = 256, background: tuple[int, int, int] | None = WHITE
) -> list[np.ndarray]:
    """The mesh from all sides, at equal angles from the thumbnail's on and at one distance.

    Raises:
        UserError: fewer than 1 or more than 360 frames.
    """
    if not 1 <= frames <= 360:
        raise UserError(f"A turntable cannot have {frames} frames; choose from 1 to 360.")
    azimuths = [AZIMUTH + 360 * k / frames for k in range(frames)]
    cameras = frame(mesh.vertices, azimuths, ELEVATION, FOVY)
    if mesh.normals is None:
        mesh = mesh.replace(normals=smooth_normals(mesh.vertices.float(), mesh.faces))
    return [render(mesh, cameras[k], size, background) for k in range(frames)]


def sheet(images: Sequence[np.ndarray], columns: int | None = None, gap: int = 0) -> np.ndarray:
    """Pictures of one size side by side, row after row, on white (transparent if they have alpha).

    Args:
        images: uint8 [H, W, C] each, all alike.
        columns: how many in a row; by default as many as make the sheet about square.
        gap: pixels between them.

    Returns:
        uint8 [rows * H + gaps, columns * W + gaps, C].

    Raises:
        ValueError: no pictures, or of several sizes.
    """
    if not images or any(image.shape != images[0].shape for image in images):
        raise ValueError("a sheet needs pictures, all of one size")
    columns = min(len(images), columns or math.ceil(math.sqrt(len(images))))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    result = np.full(shape, 0 if channels == 4 else 255, np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * (height + gap), k % columns * (width + gap)
        result[top : top + height, left : left + width] = image
    return result


def animation(frames: Sequence[np.ndarray], format: str = "webp", seconds: float = 2.4) -> bytes:
    """Pictures as one moving picture that runs in a loop.

    Args:
        frames: uint8 [H, W, 3 or 4] each, all of one size.
        format: "webp", "gif", or "png" for a still strip of all frames side by side.
        seconds: for one turn.

    Returns:
        The bytes of the file; the same frames give the same bytes.

    Raises:
        UserError: an unknown format.
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("an animation needs frames")
    buffer = io.BytesIO()
    if format == "png":
        Image.fromarray(sheet(frames, columns=len(frames))).save(buffer, "PNG")
        return buffer.getvalue()
    if format not in ("webp", "gif"):
        raise UserError(f"Unknown animation format {format[:40]!r}; choose one of webp, gif, png.")
    pictures = [Image.fromarray(image) for image in frames]
    timing = {"duration": max(20, round(1000 * seconds / len(frames))), "loop": 0}
    if format == "webp":
        pictures[0].save(
            buffer, "WEBP", save_all=True, append_images=pictures[1:], quality=85, method=4, **timing
        )
    else:
        pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], disposal=2, **timing)
    return buffer.getvalue()
