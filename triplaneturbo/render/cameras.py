"""Cameras: where a view stands and what it sees.

World: right-handed, z up; azimuth runs from +x toward +y, elevation upward. A camera-to-world matrix has the
columns right, up, back (an OpenGL camera: it looks along its own -z). Row 0 of an image is its top row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """V pinhole views.

    Attributes:
        c2w: camera-to-world matrices [V, 4, 4].
        fovy: full vertical field of view, radians [V].
        near, far: clipping distances along the view, in world units.
    """

    c2w: Tensor
    fovy: Tensor
    near: float = 0.1
    far: float = 1000.0

    def __len__(self) -> int:
        return len(self.c2w)

    def __getitem__(self, view: int | slice) -> Cameras:
        """One of the views, as cameras of length 1, or several."""
        if not isinstance(view, slice):
            view = range(len(self))[view]
            view = slice(view, view + 1)
        return replace(self, c2w=self.c2w[view], fovy=self.fovy[view])

    def to(self, target: torch.device | torch.dtype | str) -> Cameras:
        """The same cameras on another device or in another dtype."""
        return replace(self, c2w=self.c2w.to(target), fovy=self.fovy.to(target))

    @property
    def positions(self) -> Tensor:
        """Eye points [V, 3]."""
        return self.c2w[:, :3, 3]

    def to_camera(self, points: Tensor) -> Tensor:
        """World points [N, 3] in camera axes [V, N, 3]: x right, y up, z back (so depth is -z)."""
        relative = points[None] - self.positions[:, None]  # [V, N, 3]
        return relative @ self.c2w[:, :3, :3]

    def to_pixels(self, points: Tensor, height: int, width: int) -> Tensor:
        """World points [N, 3] as homogeneous pixels (x*w, y*w, w) [V, N, 3].

        w is the view depth; x grows rightward and y downward from the image's top left corner, so that the
        centre of the pixel in row r and column c is (c + 0.5, r + 0.5).
        """
        right, up, back = self.to_camera(points).unbind(-1)  # [V, N] each
        depth = -back
        focal = 0.5 * height / torch.tan(self.fovy / 2)[:, None]  # [V, 1]
        return torch.stack(
            (focal * right + width / 2 * depth, height / 2 * depth - focal * up, depth), dim=-1
        )

    def projection(self, aspect: float = 1.0) -> Tensor:
        """Clip matrices [V, 4, 4] for camera axes; clip y points DOWN, so that image row 0 is the top one.

        Args:
            aspect: the image's width over its height.
        """
        scale = 1 / torch.tan(self.fovy / 2)  # [V]
        matrix = self.c2w.new_zeros(len(self), 4, 4)
        matrix[:, 0, 0] = scale / aspect
        matrix[:, 1, 1] = -scale
        matrix[:, 2, 2] = -(self.far + self.near) / (self.far - self.near)
        matrix[:, 2, 3] = -2 * self.far * self.near / (self.far - self.near)
        matrix[:, 3, 2] = -1
        return matrix

    def mvp(self, aspect: float = 1.0) -> Tensor:
        """World to clip matrices [V, 4, 4], for column vectors; see `projection`."""
        rotation = self.c2w[:, :3, :3].mT
        w2c = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device).repeat(len(self), 1, 1)
        w2c[:, :3, :3] = rotation
        w2c[:, :3, 3] = -(rotation @ self.positions[..., None]).squeeze(-1)
        return self.projection(aspect) @ w2c

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Origins and unit directions through the pixel centres, [V, H, W, 3] each."""
        like = {"dtype": self.c2w.dtype, "device": self.c2w.device}
        focal = 0.5 * height / torch.tan(self.fovy / 2)[:, None, None]  # [V, 1, 1]
        x = (torch.arange(width, **like) + 0.5 - width / 2)[None, None] / focal  # [V, 1, W]
        y = (height / 2 - torch.arange(height, **like) - 0.5)[None, :, None] / focal  # [V, H, 1]
        x, y = torch.broadcast_tensors(x, y)
        directions = torch.stack((x, y, -torch.ones_like(x)), dim=-1)  # [V, H, W, 3]
        directions = F.normalize(torch.einsum("vij,vhwj->vhwi", self.c2w[:, :3, :3], directions), dim=-1)
        return self.positions[:, None, None].expand_as(directions), directions


def look_at(eye: Tensor, target: Tensor | None = None) -> Tensor:
    """Camera-to-world matrices [V, 4, 4] of upright cameras at `eye` [V, 3] that look at `target`.

    Args:
        eye: eye points [V, 3].
        target: the point to look at, [3] or [V, 3]; the origin if not given.

    A camera that looks straight down or up has the world's -x or +x on its upper side.
    """
    target = torch.zeros_like(eye) if target is None else target.expand_as(eye)
    back = F.normalize(eye - target, dim=-1)  # [V, 3]
    up = back.new_tensor([0.0, 0.0, 1.0]).expand_as(back)
    vertical = back[:, 2:].abs() > 1 - 1e-6
    side = torch.zeros_like(back)
    side[:, 0] = -back[:, 2].detach().sign()
    right = F.normalize(torch.linalg.cross(torch.where(vertical, side, up), back), dim=-1)
    c2w = torch.zeros(len(eye), 4, 4, dtype=eye.dtype, device=eye.device)
    c2w[:, :3, 0] = right
    c2w[:, :3, 1] = torch.linalg.cross(back, right)
    c2w[:, :3, 2] = back
    c2w[:, :3, 3] = eye
    c2w[:, 3, 3] = 1
    return c2w


def orbit(
    azimuth: float | Sequence[float] | Tensor,
    elevation: float | Sequence[float] | Tensor,
    distance: float | Sequence[float] | Tensor,
    fovy: float | Sequence[float] | Tensor = 40.0,
    target: Sequence[float] = (0.0, 0.0, 0.0),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Cameras:
    """Cameras on spheres around `target`, looking at it.

    Args:
        azimuth: degrees from +x toward +y, a number or V of them; so are the next three, which broadcast.
        elevation: degrees above the horizon.
        distance: from the eye to the target, in world units.
        fovy: full vertical field of view, degrees.
        target: the point that all cameras look at.
        device, dtype: of the result (computed in double precision).
    """
    numbers = [
        torch.as_tensor(n, dtype=torch.float64).reshape(-1) for n in (azimuth, elevation, distance, fovy)
    ]
    azimuths, elevations, distances, fovys = torch.broadcast_tensors(*numbers)  # [V] each
    a, e = azimuths.deg2rad(), elevations.deg2rad()
    offset = torch.stack((e.cos() * a.cos(), e.cos() * a.sin(), e.sin()), dim=-1)  # [V, 3]
    middle = torch.tensor(target, dtype=torch.float64)
    c2w = look_at(middle + offset * distances[:, None], middle)
    return Cameras(c2w.to(device, dtype), fovys.deg2rad().to(device, dtype))


def frame(
    points: Tensor,
    azimuth: float | Sequence[float] | Tensor,
    elevation: float | Sequence[float] | Tensor,
    fovy: float = 40.0,
    margin: float = 0.05,
) -> Cameras:
    """Orbiting cameras that just see all points in a square image, all from the same distance.

    Args:
        points: world positions [N, 3]; the cameras look at the middle of their bounds.
        azimuth: degrees from +x toward +y, a number or V of them.
        elevation: degrees above the horizon, a number or V of them.
        fovy: full field of view, degrees.
        margin: share of the image left free on each side.

    Returns:
        V cameras on the CPU, their near and far planes set to suit. Without points they look at the origin.
    """
    points = points.detach().to("cpu", torch.float64)
    if len(points) == 0:
        points = torch.zeros(1, 3, dtype=torch.float64)
    middle = (points.amin(0) + points.amax(0)) / 2
    cameras = orbit(azimuth, elevation, 1.0, fovy, dtype=torch.float64)
    # A point at (x, y, z) in the axes of a camera at distance d is in view if |x| and |y| <= (d - z) * reach.
    reach = (1 - 2 * margin) * torch.tan(cameras.fovy / 2)[:, None]
    x, y, z = ((points - middle) @ cameras.c2w[:, :3, :3]).unbind(-1)  # [V, N] each
    radius = float((points - middle).norm(dim=1).max()) or 1.0
    aside = torch.maximum(x.abs(), y.abs()).clamp_min(
        radius / 5
    )  # not onto the tip of what points at the eye
    distance = float((z + aside / reach).max())
    placed = orbit(azimuth, elevation, distance, fovy, middle.tolist())
    return Cameras(placed.c2w, placed.fovy, near=radius / 100, far=100 * distance)
