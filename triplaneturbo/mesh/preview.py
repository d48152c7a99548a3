"""Mesh previews: thumbnails, turntables, animations and contact sheets, rendered without a window or a GPU.

Light is summed in linear space and encoded as sRGB at the end. The lights are fixed to the camera, and their
sum on a surface that faces the camera is close to 1, so that colours look as they were authored.
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
DEFAULT_GREY = 0.75  # sRGB grey of a mesh without colours

# Directional lights in camera axes (x right, y up, z toward the viewer), and their intensities.
_KEY, _KEY_POWER = (-0.45, 0.65, 0.62), 0.62
_FILL, _FILL_POWER = (0.75, 0.10, 0.65), 0.20
_SKY, _GROUND = 0.48, 0.22  # hemispherical ambient light from above and from below
_GLOSS, _GLOSS_EXPONENT = 0.05, 24.0


def render(
    mesh: Mesh,
    camera: Cameras,
    size: int | tuple[int, int] = 256,
    background: tuple[int, int, int] | None = WHITE,
) -> np.ndarray:
    """Render a softly lit image of a mesh, antialiased by 2 x 2 supersampling.

    Args:
        mesh: with a texture, vertex colours, or neither (then grey); its normal map is used if it has one.
        camera: a single view.
        size: side of the image in pixels, or (height, width).
        background: sRGB bytes, or None for a transparent background.

    Returns:
        uint8 [H, W, 3], or [H, W, 4] with a transparent background (straight alpha, not premultiplied).

    Raises:
        UserError: a side is outside 1 .. 4096.
        ValueError: `camera` holds more or fewer than one view.
    """
    height, width = image_size(size)
    if len(camera) != 1:
        raise ValueError(f"camera must hold one view, not {len(camera)}")
    with torch.no_grad():
        light, covered = _shade(mesh, camera, 2 * height, 2 * width)
        return resolve(light, covered, background)


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of an image.

    Raises:
        UserError: a side is outside 1 .. 4096.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise UserError(f"Invalid image size {width} x {height}; each side must be 1 to 4096 pixels.")
    return height, width


class RenderedView(NamedTuple):
    """Surface attributes at the P pixels of one view that the mesh covers.

    Attributes:
        pixels: mask of the covered pixels, bool [H, W].
        triangle: face index [P].
        color: sRGB in [0, 1] [P, 3].
        normal: unit normals in world axes, perturbed by the normal map if there is one [P, 3].
        position: in world axes [P, 3].
    """

    pixels: Tensor
    triangle: Tensor
    color: Tensor
    normal: Tensor
    position: Tensor


def rasterize_view(mesh: Mesh, camera: Cameras, height: int, width: int) -> RenderedView:
    """Rasterize a mesh in one view and interpolate its attributes."""
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
        """Interpolate vertex attributes [V, C] at the covered pixels [P, C]."""
        a, b, c = corners.unbind(1)
        values = attributes.float()
        return values[a] * bary[:, :1] + values[b] * bary[:, 1:2] + values[c] * bary[:, 2:]

    normals = mesh.normals if mesh.normals is not None else smooth_normals(vertices, faces)
    normal = F.normalize(at_pixels(normals), dim=1)
    uv = None if mesh.uv is None else at_pixels(mesh.uv)
    if uv is not None and mesh.normal_map is not None and mesh.tangents is not None:
        normal = _apply_normal_map(
            normal, at_pixels(mesh.tangents), _image_tensor(mesh.normal_map, vertices), uv
        )
    if uv is not None and mesh.texture is not None:
        color = sample(_image_tensor(mesh.texture, vertices), uv)
    elif mesh.colors is not None:
        color = at_pixels(mesh.colors).clamp(0, 1)
    else:
        color = torch.full_like(normal, DEFAULT_GREY)
    return RenderedView(pixels, triangle, color, normal, at_pixels(vertices))


def _shade(mesh: Mesh, camera: Cameras, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return linear light [H, W, 3], 0 outside the mesh, and the coverage [H, W] (0 or 1)."""
    camera = camera.to(mesh.vertices.device).to(torch.float32)
    view = rasterize_view(mesh, camera, height, width)
    axes = camera.c2w[0, :3, :3]
    position = camera.to_camera(view.position)[0]  # [P, 3]
    light = _studio_lighting(
        srgb_to_linear(view.color), view.normal @ axes, -F.normalize(position, dim=1), (axes.T)[:, 2]
    )
    return scatter_pixels(light, view.pixels)


def scatter_pixels(light: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Scatter the light [P, 3] of covered pixels into an image [H, W, 3]; also return the coverage [H, W]."""
    image = light.new_zeros(*pixels.shape, 3)
    image[pixels] = light
    return image, pixels.to(light.dtype)


def _studio_lighting(color: Tensor, normal: Tensor, toward_eye: Tensor, up: Tensor) -> Tensor:
    """Shade a surface with Blinn-Phong lights fixed to the camera; returns linear light [P, 3].

    Args:
        color: linear [P, 3].
        normal, toward_eye, up: unit vectors in camera axes, [P, 3], [P, 3] and [3].
    """
    # Both sides of a face are lit, so that the inside of an open surface is visible.
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


def _apply_normal_map(normal: Tensor, tangent: Tensor, normal_map: Tensor, uv: Tensor) -> Tensor:
    """Perturb normals [P, 3] with a tangent-space normal map [H, W, 3] sampled at uv [P, 2]."""
    bend = sample(normal_map, uv) * 2 - 1
    tangent_direction = tangent[:, :3]
    tangent_direction = F.normalize(
        tangent_direction - normal * (tangent_direction * normal).sum(1, keepdim=True), dim=1
    )
    bitangent = torch.linalg.cross(normal, tangent_direction) * tangent[:, 3:].sign()
    return F.normalize(
        bend[:, :1] * tangent_direction + bend[:, 1:2] * bitangent + bend[:, 2:] * normal, dim=1
    )


def _image_tensor(pixels: np.ndarray, like: Tensor) -> Tensor:
    """Convert an image uint8 [H, W, 3] to float32 in [0, 1] on the device of `like`."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(like.device).float() / 255


def resolve(light: Tensor, covered: Tensor, background: tuple[int, int, int] | None) -> np.ndarray:
    """Average 2 x 2 samples of light [2H, 2W, 3] and coverage [2H, 2W] and composite on the background.

    Returns:
        sRGB uint8 [H, W, 3], or [H, W, 4] where `background` is None.
    """
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
    """Render a three-quarter view from slightly above that fills the image; see `render`."""
    return render(mesh, frame(mesh.vertices, AZIMUTH, ELEVATION, FOVY), size, background)


def thumbnails(
    meshes: Sequence[Mesh], size: int = 256, background: tuple[int, int, int] | None = WHITE
) -> list[np.ndarray]:
    """Render several meshes as `thumbnail` does, but with one camera that sees all of them."""
    camera = frame(torch.cat([mesh.vertices.cpu() for mesh in meshes]), AZIMUTH, ELEVATION, FOVY)
    return [render(mesh, camera, size, background) for mesh in meshes]


def turntable(
    mesh: Mesh, frames: int = 24, size: int = 256, background: tuple[int, int, int] | None = WHITE
) -> list[np.ndarray]:
    """Render the mesh from all sides, in equal steps of azimuth that start at the thumbnail's view.

    Raises:
        UserError: `frames` is outside 1 .. 360, or the size is invalid.
    """
    if not 1 <= frames <= 360:
        raise UserError(f"Invalid number of turntable frames: {frames}; choose 1 to 360.")
    azimuths = [AZIMUTH + 360 * k / frames for k in range(frames)]
    cameras = frame(mesh.vertices, azimuths, ELEVATION, FOVY)
    if mesh.normals is None:
        mesh = mesh.replace(normals=smooth_normals(mesh.vertices.float(), mesh.faces))
    return [render(mesh, cameras[k], size, background) for k in range(frames)]


def sheet(images: Sequence[np.ndarray], columns: int | None = None, gap: int = 0) -> np.ndarray:
    """Arrange images of one size in a grid, row by row, on white (transparent if they have alpha).

    Args:
        images: uint8 [H, W, C], all of the same shape.
        columns: images per row; by default the number that makes the sheet about square.
        gap: pixels between images.

    Returns:
        uint8 [rows * H + gaps, columns * W + gaps, C].

    Raises:
        ValueError: there are no images, or their shapes differ.
    """
    if not images or any(image.shape != images[0].shape for image in images):
        raise ValueError("images must be non-empty and all of one shape")
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
    """Encode images as a looping animation.

    Args:
        frames: uint8 [H, W, 3 or 4], all of the same shape.
        format: "webp", "gif", or "png" for a still strip of all frames side by side.
        seconds: duration of one loop.

    Returns:
        The bytes of the file; the same frames give the same bytes.

    Raises:
        UserError: the format is unknown.
        ValueError: there are no frames.
    """
    if not frames:
        raise ValueError("frames must be non-empty")
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
