"""View renderer of solids: paint, pattern, depth and normal per pixel; colours are a table look-up.

The surface is meshed once and rasterized. The paint of each pixel is evaluated on the solid itself, so colour
boundaries are exact at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.rasterizer import interpolate, rasterize
from triplaneturbo.toyworld.scene.palette import MAIN, NAMES, table
from triplaneturbo.toyworld.scene.solid import Solid

PATTERNS = ("striped", "spotted", "checkered")
NOTHING = 255  # paint of background pixels
_NODES = 97  # per side of the grid on which a solid is meshed
_BLOCK = 4  # grid cells per side of a block that is evaluated as a whole


@dataclass(frozen=True)
class Views:
    """V views of a solid.

    Attributes:
        paint: uint8 [V, H, W], 255 for background.
        pattern: uint8 [V, H, W]; bit k is set where the pattern PATTERNS[k] has its second colour.
        depth: distance along the view direction, float16 [V, H, W], 0 for background.
        normal: unit normals in world space times 127, int8 [V, H, W, 3], 0 for background.
    """

    paint: np.ndarray
    pattern: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


def see(solid: Solid, cameras: Cameras, size: int) -> Views:
    """Render a placed solid with every camera at `size` x `size` pixels."""
    vertices, faces = mesh(solid)
    raster = rasterize(vertices, faces, cameras, size, size)
    seen = raster.mask
    normal = interpolate(_normals(solid, vertices), faces, raster.triangle, raster.bary)  # [V, H, W, 3]
    origins, directions = cameras.rays(size, size)
    along = raster.depth[seen] / _cosine(cameras, directions)[seen]
    points = (origins[seen] + directions[seen] * along[:, None]).numpy()

    paint = np.full(seen.shape, NOTHING, dtype=np.uint8)
    pattern = np.zeros(seen.shape, dtype=np.uint8)
    mask = seen.numpy()
    paint[mask] = solid.paints(points)
    pattern[mask] = pattern_bits(points)
    quantised = (F.normalize(normal, dim=-1) * 127).round().to(torch.int8).numpy()
    return Views(paint, pattern, raster.depth.to(torch.float16).numpy(), quantised)


def mesh(solid: Solid) -> tuple[Tensor, Tensor]:
    """Extract the surface of a placed solid: vertices [V, 3] float32, faces [F, 3].

    Only blocks of the grid that the surface may touch are evaluated at every node.
    """
    axis = np.linspace(-1, 1, _NODES)
    coarse = axis[::_BLOCK]
    corners = np.stack(np.meshgrid(coarse, coarse, coarse, indexing="ij"), -1)
    far = solid.distance(corners.reshape(-1, 3)).reshape(corners.shape[:3])
    # A node is at most half a block's diagonal away from the nearest block corner.
    reach = float(np.sqrt(3)) * _BLOCK * (axis[1] - axis[0])
    near = np.abs(far) < reach
    touched = np.zeros_like(near[:-1, :-1, :-1])
    for x in (0, 1):
        for y in (0, 1):
            for z in (0, 1):
                touched |= near[x : len(coarse) - 1 + x, y : len(coarse) - 1 + y, z : len(coarse) - 1 + z]
    # Elsewhere the value at the nearest corner has the right sign, which is all that marching cubes needs.
    index = (np.arange(_NODES) + _BLOCK // 2) // _BLOCK
    grid = far[np.ix_(index, index, index)]
    fine = np.zeros(grid.shape, dtype=bool)
    for x, y, z in np.argwhere(touched) * _BLOCK:
        fine[x : x + _BLOCK + 1, y : y + _BLOCK + 1, z : z + _BLOCK + 1] = True
    at = np.argwhere(fine)
    grid[fine] = solid.distance(axis[at])
    return marching_cubes(torch.from_numpy(grid.astype(np.float32)))


def _normals(solid: Solid, vertices: Tensor) -> Tensor:
    """Return unit normals [N, 3] at surface points [N, 3], by central differences of the distance."""
    points, step = vertices.double().numpy(), 4e-3
    slopes = [solid.distance(points + d) - solid.distance(points - d) for d in np.eye(3) * step]
    return F.normalize(torch.from_numpy(np.stack(slopes, -1)).float(), dim=-1)


def _cosine(cameras: Cameras, directions: Tensor) -> Tensor:
    """Return the cosine of the angle between rays [V, H, W, 3] and the view direction: [V, H, W]."""
    return -torch.einsum("vhwi,vi->vhw", directions, cameras.c2w[:, :3, 2])


def pattern_bits(points: np.ndarray) -> np.ndarray:
    """Return the pattern bits (see `Views.pattern`) at points [N, 3] of a placed solid: uint8 [N]."""
    x, y, z = points.T
    striped = np.mod(z / 0.26 + 0.3, 1) < 0.42
    cells = points / 0.36
    to_corner = np.linalg.norm(cells - np.round(cells), axis=1)
    to_middle = np.linalg.norm(cells - np.floor(cells) - 0.5, axis=1)
    spotted = np.minimum(to_corner, to_middle) < 0.33
    checkered = np.mod(np.floor(x / 0.23 + 0.5) + np.floor(y / 0.23 + 0.5) + np.floor(z / 0.23), 2) == 1
    return (striped | spotted << 1 | checkered << 2).astype(np.uint8)


def pattern_color(main: str) -> str:
    """Return the second colour of a pattern on a main colour."""
    return {"white": "black", "black": "yellow"}.get(main, "white")


def colors(main: str, accent: str, modifier: str = "") -> np.ndarray:
    """Return the sRGB colour of every (pattern bits, paint): [8, 256, 3] float32; background is 0.

    Index it as `colors(...)[views.pattern, views.paint]`.
    """
    look_up = np.zeros((8, 256, 3), dtype=np.float32)
    paints = table(main, accent)
    look_up[:, : len(paints)] = paints
    if modifier in PATTERNS:
        with_bit = (np.arange(8) >> PATTERNS.index(modifier)) & 1 == 1
        look_up[with_bit, MAIN] = paints[NAMES.index(pattern_color(main))]
    return look_up


def shade(rgb: Tensor, normal: Tensor, toward: Tensor) -> Tensor:
    """Shade colours [..., 3] with ambient light, a light from above and one at the camera.

    The result is between 0.62 and 1 times the colour.

    Args:
        normal: unit normals in world space [..., 3].
        toward: unit vector from the object to the camera, broadcastable to `normal`.
    """
    up = normal[..., 2:] * 0.5 + 0.5
    facing = (normal * toward).sum(-1, keepdim=True).clamp_min(0)
    return rgb * (0.62 + 0.2 * up + 0.18 * facing)
