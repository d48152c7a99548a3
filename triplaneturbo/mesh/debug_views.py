"""Debug views of a mesh: wireframe, normals, UV atlas, texture.

All but the texture are drawn at twice the size with the rasterizer of the previews and averaged in linear
light.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import (
    AZIMUTH,
    ELEVATION,
    FOVY,
    WHITE,
    image_size,
    rasterize_view,
    resolve,
    scatter_pixels,
)
from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import Cameras, frame
from triplaneturbo.render.colors import srgb_to_linear

Background = tuple[int, int, int] | None

_LINE = (0.10, 0.14, 0.22)  # sRGB
_OUTLINE = (0.35, 0.00, 0.55)  # violet, for outlines of charts: rare in textures
_CLAY = 0.90  # sRGB grey of the surface under a wireframe
_FULL = 9.0  # edges of a face have full opacity if its area is at least the square of this, in pixels
_FAINT = 0.18  # opacity of the edges of the smallest faces


def wireframe(
    mesh: Mesh, size: int = 512, camera: Cameras | None = None, background: Background = WHITE
) -> np.ndarray:
    """Draw the edges of all visible faces on a clay-coloured surface, fainter where faces are small.

    Args:
        mesh: any mesh.
        size: side of the image, 1 to 4096 pixels.
        camera: a single view; by default the thumbnail's.
        background: sRGB bytes, or None for a transparent background.

    Returns:
        uint8 [size, size, 3], or [size, size, 4] with a transparent background.

    Raises:
        UserError: the size is invalid.
    """
    height, width = (2 * side for side in image_size(size))
    camera = _camera(mesh, camera)
    with torch.no_grad():
        view = rasterize_view(mesh.replace(normal_map=None, texture=None), camera, height, width)
        toward_eye = torch.nn.functional.normalize(camera.positions[0] - view.position, dim=1)
        facing = (view.normal * toward_eye).sum(1, keepdim=True).abs()
        clay = srgb_to_linear(torch.full_like(facing, _CLAY)) * (0.35 + 0.65 * facing)
        places = camera.to_pixels(mesh.vertices.float(), height, width)[0]  # [V, 3]
        corners = (places[:, :2] / places[:, 2:])[mesh.faces[view.triangle]]  # [P, 3, 2]
        distance, extent = _edge_distances(corners, view.pixels)
        strength = (extent / (2 * _FULL)).clamp(_FAINT, 1)
        line = _stroke(distance.amin(1), 1.0) * strength
        return resolve(*scatter_pixels(_composite(clay.expand(-1, 3), _LINE, line), view.pixels), background)


def normals(
    mesh: Mesh, size: int = 512, camera: Cameras | None = None, background: Background = WHITE
) -> np.ndarray:
    """Draw camera-space normals as colours: red to the right, green up, blue toward the viewer.

    The normal map is applied if there is one. Arguments, result and errors are those of `wireframe`.
    """
    height, width = (2 * side for side in image_size(size))
    camera = _camera(mesh, camera)
    with torch.no_grad():
        view = rasterize_view(mesh.replace(texture=None), camera, height, width)
        color = 0.5 + 0.5 * (view.normal @ camera.c2w[0, :3, :3])
        return resolve(*scatter_pixels(srgb_to_linear(color.clamp(0, 1)), view.pixels), background)


def atlas(mesh: Mesh, size: int = 512, background: Background = WHITE) -> np.ndarray:
    """Draw the UV layout: edges of faces, outlines of charts in violet, over a faint texture.

    Args:
        mesh: with texture coordinates.
        size: side of the image, 1 to 4096 pixels; its row 0 is row 0 of the texture.
        background: sRGB bytes where there is no face, or None for a transparent background.

    Returns:
        uint8 [size, size, 3], or [size, size, 4] with a transparent background.

    Raises:
        UserError: the size is invalid, or the mesh has no texture coordinates.
    """
    side, _ = (2 * side for side in image_size(size))
    if mesh.uv is None:
        raise UserError("This mesh has no texture coordinates; set unwrap to fast or xatlas.")
    uv, faces = mesh.uv.detach().cpu().double(), mesh.faces.cpu()
    flat = torch.nn.functional.pad(uv * side, (0, 1), value=1.0)  # [V, 3] at depth 1
    triangle = zbuffer.draw(flat[None].numpy(), faces.numpy(), 0.5, side, side, torch.get_num_threads())[0]
    where = torch.from_numpy(triangle[0])
    pixels = where >= 0
    inside = where[pixels]
    corners = flat[:, :2].float()[faces[inside]]  # [P, 3, 2]
    distance, extent = _edge_distances(corners, pixels)
    border = _boundary_edges(faces)[inside]  # [P, 3]
    color = torch.full((len(inside), 3), _CLAY)
    if mesh.texture is not None:
        color = 0.45 * _resized(mesh.texture, side)[pixels] + 0.55 * color
    strength = 0.6 * (extent / (2 * _FULL)).clamp(_FAINT, 1)
    light = _composite(srgb_to_linear(color), _LINE, _stroke(distance.amin(1), 1.0) * strength)
    outline = _stroke(torch.where(border, distance, torch.inf).amin(1), 2.0)
    return resolve(*scatter_pixels(_composite(light, _OUTLINE, outline), pixels), background)


def texture(mesh: Mesh, size: int | None = None) -> np.ndarray:
    """Return the base colour, uint8 [H, W, 3], reduced to at most `size` pixels per side if given.

    Raises:
        UserError: the mesh has no texture, or the size is invalid.
    """
    if mesh.texture is None:
        raise UserError("This mesh has no texture; set unwrap to fast or xatlas.")
    if size is None:
        return mesh.texture
    picture = Image.fromarray(mesh.texture)
    picture.thumbnail(image_size(size), Image.Resampling.BOX, reducing_gap=None)  # never enlarges
    return np.asarray(picture)


VIEWS: dict[str, Callable[..., np.ndarray]] = {
    "wireframe": wireframe,
    "normals": normals,
    "atlas": atlas,
    "texture": texture,
}
"""Debug views by name; each takes a mesh and a size."""


def _camera(mesh: Mesh, camera: Cameras | None) -> Cameras:
    camera = camera if camera is not None else frame(mesh.vertices, AZIMUTH, ELEVATION, FOVY)
    if len(camera) != 1:
        raise ValueError(f"camera must hold one view, not {len(camera)}")
    return camera.to(mesh.vertices.device).to(torch.float32)


def _edge_distances(corners: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances of covered pixels from the edges of their faces, and the size of these faces.

    Args:
        corners: corners of the face at each covered pixel, in pixels [P, 3, 2].
        pixels: mask of the covered pixels, bool [H, W].

    Returns:
        distances from the edges that begin at corners 0, 1 and 2 [P, 3], and square roots of the areas [P].
    """
    row, column = torch.nonzero(pixels, as_tuple=True)
    centre = torch.stack((column, row), dim=1).to(corners) + 0.5  # [P, 2]
    along = corners.roll(-1, 1) - corners  # [P, 3, 2]
    length = along.norm(dim=2).clamp_min(1e-6)  # [P, 3]
    reach = centre[:, None] - corners
    across = along[..., 0] * reach[..., 1] - along[..., 1] * reach[..., 0]
    area = (along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0]).abs() / 2  # [P]
    return across.abs() / length, area.sqrt()


def _stroke(distance: Tensor, width: float) -> Tensor:
    """Return the coverage of pixels by a line `width` output pixels wide, given their distance to its centre.

    The distance is in pixels of the supersampled image.
    """
    return (width + 0.5 - distance).clamp(0, 1)


def _composite(light: Tensor, line: tuple[float, float, float], cover: Tensor) -> Tensor:
    """Composite a line of an sRGB colour over linear light [P, 3], given its coverage of each pixel [P]."""
    return torch.lerp(
        light, srgb_to_linear(light.new_tensor(line)).expand_as(light), cover[:, None].to(light)
    )


def _boundary_edges(faces: Tensor) -> Tensor:
    """Return the boundary edges of the faces [F, 3], where edge k begins at corner k: bool [F, 3]."""
    starts, ends = faces, faces.roll(-1, 1)
    keys = torch.minimum(starts, ends) * (int(faces.max()) + 1) + torch.maximum(starts, ends)
    _, group, count = keys.unique(return_inverse=True, return_counts=True)
    return count[group] == 1


def _resized(image: np.ndarray, side: int) -> Tensor:
    """Resize an image uint8 [H, W, 3] to float32 in [0, 1] [side, side, 3]."""
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).astype(np.float32)) / 255
