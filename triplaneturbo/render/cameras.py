"""Pinhole cameras: matrices, projection, rays and orbits.

World space is right-handed with z up; azimuth goes from +x toward +y, elevation upward. The columns of a
camera-to-world matrix are right, up and back (OpenGL convention: cameras look along their -z axis). Row 0 of
an image is its top row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of V pinhole cameras.

    Attributes:
        c2w: camera-to-world matrices [V, 4, 4].
        fovy: full vertical fields of view in radians [V].
        near, far: view depths of the clipping planes, in world units.
    """

    c2w: Tensor
    fovy: Tensor
    near: float = 0.1
    far: float = 1000.0

    def __len__(self) -> int:
        return len(self.c2w)

    def __getitem__(self, view: int | slice) -> Cameras:
        """Select one camera (as a batch of length 1) or a slice."""
        if not isinstance(view, slice):
            view = range(len(self))[view]
            view = slice(view, view + 1)
        return replace(self, c2w=self.c2w[view], fovy=self.fovy[view])

    def to(self, target: torch.device | torch.dtype | str) -> Cameras:
        """Move the cameras to a device or convert them to a dtype."""
        return replace(self, c2w=self.c2w.to(target), fovy=self.fovy.to(target))

    @property
    def positions(self) -> Tensor:
        """Camera positions [V, 3]."""
        return self.c2w[:, :3, 3]

    def to_camera(self, points: Tensor) -> Tensor:
        """Transform world points [N, 3] to camera space [V, N, 3]: x right, y up, z back (depth is -z)."""
        relative = points[None] - self.positions[:, None]  # [V, N, 3]
        return relative @ self.c2w[:, :3, :3]

    def to_pixels(self, points: Tensor, height: int, width: int) -> Tensor:
        """Project world points [N, 3] to homogeneous pixel coordinates (x*w, y*w, w) [V, N, 3].

        w is the view depth. x points right and y down from the top left corner of the image; the centre of
        the pixel in row r and column c is (c + 0.5, r + 0.5).
        """
        right, up, back = self.to_camera(points).unbind(-1)  # [V, N] each
        depth = -back
        focal = 0.5 * height / torch.tan(self.fovy / 2)[:, None]  # [V, 1]
        return torch.stack(
            (focal * right + width / 2 * depth, height / 2 * depth - focal * up, depth), dim=-1
        )

    def projection(self, aspect: float = 1.0) -> Tensor:
        """Return camera-to-clip matrices [V, 4, 4]; clip y points down, so that row 0 is the top row.

        Args:
            aspect: image width divided by height.
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
        """Return world-to-clip matrices [V, 4, 4] for column vectors; see `projection`."""
        rotation = self.c2w[:, :3, :3].mT
        w2c = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device).repeat(len(self), 1, 1)
        w2c[:, :3, :3] = rotation
        w2c[:, :3, 3] = -(rotation @ self.positions[..., None]).squeeze(-1)
        return self.projection(aspect) @ w2c

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the origins and unit directions of rays through pixel centres, [V, H, W, 3] each."""
        like = {"dtype": self.c2w.dtype, "device": self.c2w.device}
        focal = 0.5 * height / torch.tan(self.fovy / 2)[:, None, None]  # [V, 1, 1]
        x = (torch.arange(width, **like) + 0.5 - width / 2)[None, None] / focal  # [V, 1, W]
        y = (height / 2 - torch.arange(height, **like) - 0.5)[None, :, None] / focal  # [V, H, 1]
        x, y = torch.broadcast_tensors(x, y)
        directions = torch.stack((x, y, -torch.ones_like(x)), dim=-1)  # [V, H, W, 3]
        directions = F.normalize(torch.einsum("vij,vhwj->vhwi", self.c2w[:, :3, :3], directions), dim=-1)
        return self.positions[:, None, None].expand_as(directions), directions


def look_at(eye: Tensor, target: Tensor | None = None) -> Tensor:
    """Return camera-to-world matrices [V, 4, 4] of upright cameras that look at a target.

    The image of a camera that looks straight down or up has the world's -x or +x at its top.

    Args:
        eye: camera positions [V, 3].
        target: the point to look at, [3] or [V, 3]; None: the origin.
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
    """Create cameras on spheres around a target, looking at it.

    azimuth, elevation, distance and fovy are numbers or sequences of length V, and broadcast.

    Args:
        azimuth: degrees from +x toward +y.
        elevation: degrees above the horizon.
        distance: distance from the camera to the target, in world units.
        fovy: full vertical field of view in degrees.
        target: the point that all cameras look at.
        device, dtype: device and dtype of the result, which is computed in double precision.
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
    """Create orbit cameras, at the smallest common distance, that see all points in a square image.

    Args:
        points: world positions [N, 3]; the cameras look at the centre of their bounding box.
        azimuth: degrees from +x toward +y, a number or a sequence of length V.
        elevation: degrees above the horizon, a number or a sequence of length V.
        fovy: full field of view in degrees.
        margin: empty fraction of the image on each side.

    Returns:
        V cameras on the CPU with matching near and far planes. Without points they look at the origin.
    """
    points = points.detach().to("cpu", torch.float64)
    if len(points) == 0:
        points = torch.zeros(1, 3, dtype=torch.float64)
    middle = (points.amin(0) + points.amax(0)) / 2
    cameras = orbit(azimuth, elevation, 1.0, fovy, dtype=torch.float64)
    # A point (x, y, z) in the axes of a camera at distance d is in view if |x| and |y| <= (d - z) * reach.
    reach = (1 - 2 * margin) * torch.tan(cameras.fovy / 2)[:, None]
    x, y, z = ((points - middle) @ cameras.c2w[:, :3, :3]).unbind(-1)  # [V, N] each
    radius = float((points - middle).norm(dim=1).max()) or 1.0
    # The minimum keeps the camera away from the tip of an object that points at it.
    aside = torch.maximum(x.abs(), y.abs()).clamp_min(radius / 5)
    distance = float((z + aside / reach).max())
    placed = orbit(azimuth, elevation, distance, fovy, middle.tolist())
    return Cameras(placed.c2w, placed.fovy, near=radius / 100, far=100 * distance)
