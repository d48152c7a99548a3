"""Pictures of how a mesh is made, beside how it looks: wireframe, normals, atlas, texture.

All are drawn at twice the size, on the rasteriser of the previews, and averaged in linear light.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import AZIMUTH, ELEVATION, FOVY, WHITE, develop, see, sides, spread
from triplaneturbo.render import zbuffer
from triplaneturbo.render.cameras import Cameras, frame
from triplaneturbo.render.colors import srgb_to_linear

Background = tuple[int, int, int] | None

_LINE = (0.10, 0.14, 0.22)  # sRGB
_OUTLINE = (0.35, 0.00, 0.55)  # of charts: few textures are violet
_CLAY = 0.90  # sRGB grey of the surface under a wireframe
_FULL = 9.0  # side, in pixels, of a square as large as a face whose lines are drawn at full strength
_FAINT = 0.18  # and how strong they are where faces vanish


def wireframe(
    mesh: Mesh, size: int = 512, camera: Cameras | None = None, background: Background = WHITE
) -> np.ndarray:
    """The edges of all faces that are in sight, on a surface of clay; fainter where faces are small.

    Args:
        mesh: any.
        size: the picture's side, 1 to 4096 pixels.
        camera: one view; by default the thumbnail's.
        background: sRGB bytes, or None for a transparent one.

    Returns:
        uint8 [size, size, 3], or [size, size, 4] with a transparent background.

    Raises:
        UserError: a size that cannot be.
    """
    height, width = (2 * side for side in sides(size))
    camera = _camera(mesh, camera)
    with torch.no_grad():
        seen = see(mesh.replace(normal_map=None, texture=None), camera, height, width)
        toward_eye = torch.nn.functional.normalize(camera.positions[0] - seen.position, dim=1)
        facing = (seen.normal * toward_eye).sum(1, keepdim=True).abs()
        clay = srgb_to_linear(torch.full_like(facing, _CLAY)) * (0.35 + 0.65 * facing)
        places = camera.to_pixels(mesh.vertices.float(), height, width)[0]  # [V, 3]
        corners = (places[:, :2] / places[:, 2:])[mesh.faces[seen.triangle]]  # [P, 3, 2]
        distance, extent = _distances(corners, seen.pixels)
        strength = (extent / (2 * _FULL)).clamp(_FAINT, 1)
        line = _stroke(distance.amin(1), 1.0) * strength
        return develop(*spread(_over(clay.expand(-1, 3), _LINE, line), seen.pixels), background)


def normals(
    mesh: Mesh, size: int = 512, camera: Cameras | None = None, background: Background = WHITE
) -> np.ndarray:
    """The surface's directions as colours: red to the right, green up, blue toward the viewer.

    With the normal map, if there is one. Arguments, result and errors as for `wireframe`.
    """
    height, width = (2 * side for side in sides(size))
    camera = _camera(mesh, camera)
    with torch.no_grad():
        seen = see(mesh.replace(texture=None), camera, height, width)
        color = 0.5 + 0.5 * (seen.normal @ camera.c2w[0, :3, :3])
        return develop(*spread(srgb_to_linear(color.clamp(0, 1)), seen.pixels), background)


def atlas(mesh: Mesh, size: int = 512, background: Background = WHITE) -> np.ndarray:
    """How the faces lie in the texture: their edges, the outlines of charts in violet, the texture faint.

    Args:
        mesh: with texture coordinates.
        size: the picture's side, 1 to 4096 pixels; its row 0 is the texture's.
        background: sRGB bytes of what no face covers, or None for a transparent one.

    Returns:
        uint8 [size, size, 3], or [size, size, 4] with a transparent background.

    Raises:
        UserError: a size that cannot be, or a mesh without texture coordinates.
    """
    side, _ = (2 * side for side in sides(size))
    if mesh.uv is None:
        raise UserError("This mesh has no texture coordinates; make it with the unwrap fast or xatlas.")
    uv, faces = mesh.uv.detach().cpu().double(), mesh.faces.cpu()
    flat = torch.nn.functional.pad(uv * side, (0, 1), value=1.0)  # [V, 3], all at depth 1
    triangle = zbuffer.draw(flat[None].numpy(), faces.numpy(), 0.5, side, side, torch.get_num_threads())[0]
    where = torch.from_numpy(triangle[0])
    pixels = where >= 0
    inside = where[pixels]
    corners = flat[:, :2].float()[faces[inside]]  # [P, 3, 2]
    distance, extent = _distances(corners, pixels)
    border = _borders(faces)[inside]  # [P, 3]
    color = torch.full((len(inside), 3), _CLAY)
    if mesh.texture is not None:
        color = 0.45 * _resized(mesh.texture, side)[pixels] + 0.55 * color
    strength = 0.6 * (extent / (2 * _FULL)).clamp(_FAINT, 1)
    light = _over(srgb_to_linear(color), _LINE, _stroke(distance.amin(1), 1.0) * strength)
    outline = _stroke(torch.where(border, distance, torch.inf).amin(1), 2.0)
    return develop(*spread(_over(light, _OUTLINE, outline), pixels), background)


def texture(mesh: Mesh, size: int | None = None) -> np.ndarray:
    """The base colour as it is, or no larger than `size` pixels a side: uint8 [H, W, 3].

    Raises:
        UserError: a mesh without a texture, or a size that cannot be.
    """
    if mesh.texture is None:
        raise UserError("This mesh has no texture; make it with the unwrap fast or xatlas.")
    if size is None:
        return mesh.texture
    picture = Image.fromarray(mesh.texture)
    picture.thumbnail(sides(size), Image.Resampling.BOX, reducing_gap=None)  # never larger than it is
    return np.asarray(picture)


VIEWS: dict[str, Callable[..., np.ndarray]] = {
    "wireframe": wireframe,
    "normals": normals,
    "atlas": atlas,
    "texture": texture,
}
"""The pictures by name; each takes a mesh and a size."""


def _camera(mesh: Mesh, camera: Cameras | None) -> Cameras:
    camera = camera if camera is not None else frame(mesh.vertices, AZIMUTH, ELEVATION, FOVY)
    if len(camera) != 1:
        raise ValueError(f"one view at a time, not {len(camera)}")
    return camera.to(mesh.vertices.device).to(torch.float32)


def _distances(corners: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """How far covered pixels are from the sides of their faces, and how large these are.

    Args:
        corners: of the face at each covered pixel, in pixels [P, 3, 2].
        pixels: which are covered, bool [H, W].

    Returns:
        distances from the sides that begin at corner 0, 1 and 2 [P, 3], and the roots of the areas [P].
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
    """How much of a line of `width` final pixels covers a pixel that far from its middle, in drawn pixels."""
    return (width + 0.5 - distance).clamp(0, 1)


def _over(light: Tensor, line: tuple[float, float, float], cover: Tensor) -> Tensor:
    """Linear light [P, 3] with a line of an sRGB colour over it, as far as it covers each pixel [P]."""
    return torch.lerp(
        light, srgb_to_linear(light.new_tensor(line)).expand_as(light), cover[:, None].to(light)
    )


def _borders(faces: Tensor) -> Tensor:
    """Which sides of the faces [F, 3] (from corner 0, 1 and 2 on) no other face shares, bool [F, 3]."""
    starts, ends = faces, faces.roll(-1, 1)
    keys = torch.minimum(starts, ends) * (int(faces.max()) + 1) + torch.maximum(starts, ends)
    _, group, count = keys.unique(return_inverse=True, return_counts=True)
    return count[group] == 1


def _resized(image: np.ndarray, side: int) -> Tensor:
    """Bytes [H, W, 3] as numbers from 0 to 1 [side, side, 3]."""
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).astype(np.float32)) / 255
