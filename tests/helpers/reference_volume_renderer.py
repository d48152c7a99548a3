"""Reference NeuS volume renderer, for any differentiable field: the slow twin of render/grid_renderer.py.

It follows the renderer of the public implementation: each ray has uniform intervals plus importance-sampled
ones around the surface that a proposal pass finds. Weights depend on the SDF and its gradient at interval
midpoints. Rays are not clipped to [-1, 1]^3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.ray_sampling import importance_edges, stopped_fraction, uniform_edges

SHARPNESS = math.exp(10 * 0.4605)  # about 100, as in the training of the released weights
PROPOSAL_STEP = 2 * 1.732 / 64  # the step that the proposal pass assumes, for any interval length
_EPS = 1e-5

SdfAt = Callable[[Tensor], Tensor]
FieldAt = Callable[[Tensor], tuple[Tensor, Tensor]]
Extra = TypeVar("Extra")


@dataclass(frozen=True)
class VolumeView:
    """The rendering of R rays in each of B scenes.

    Attributes:
        opacity: sum of the weights [B, R]; at least about 1e-5 times the number of intervals S.
        depth: sum of weights times distances along the ray [B, R].
        rgb: sum of weights times colours [B, R, 3].
        normal: sum of weights times unit normals [B, R, 3].
        gradients: SDF gradients at the samples [B, R, S, 3].
        weights: weights of the samples [B, R, S].
        edges: distances of the interval edges [B, R, S + 1].
    """

    opacity: Tensor
    depth: Tensor
    rgb: Tensor
    normal: Tensor
    gradients: Tensor
    weights: Tensor
    edges: Tensor

    def eikonal(self) -> Tensor:
        """Eikonal loss: mean of (|gradient| - 1)^2 over the samples, a scalar."""
        return (self.gradients.norm(dim=-1) - 1).square().mean()


def render_volume(
    field: FieldAt,
    origins: Tensor,
    directions: Tensor,
    sdf: SdfAt | None = None,
    sharpness: float = SHARPNESS,
    proposal: int = 128,
    importance: int = 64,
    near: float = 0.1,
    far: float = 4.0,
    jitter: torch.Generator | None = None,
    color_gradient: float = 1.0,
    difference: float | None = None,
) -> VolumeView:
    """Render rays through a field; differentiable in the parameters of the field.

    Args:
        field: returns sdf [B, M] (negative inside) and rgb [B, M, 3] at points [B, M, 3].
        origins, directions: rays [B, R, 3]; directions are not normalised.
        sdf: a cheaper function for the SDF alone, used by the proposal pass and for finite differences.
        sharpness: s in sigmoid(s * sdf).
        proposal, importance: number of intervals of the two passes; S is their sum + 1.
        near, far: range of distances along the rays.
        jitter: draws one shift per ray and pass; None: samples are centred in their steps.
        color_gradient: scale of the gradient that reaches the colours, 0 to 1; other gradients are unchanged.
        difference: step of central differences for the SDF gradient; None: exact gradients by autograd, for
            which the SDF must be twice differentiable (grid_sample is since torch 2.15).
    """
    if origins.shape != directions.shape or origins.ndim != 3 or origins.shape[-1] != 3:
        raise ValueError(
            f"origins and directions should be of shape [B, R, 3], not {tuple(origins.shape)} and "
            f"{tuple(directions.shape)}"
        )

    def sdf_at(points: Tensor) -> Tensor:
        return field(points)[0] if sdf is None else sdf(points)

    def draw_shift() -> Tensor:
        if jitter is None:
            return origins.new_full(origins.shape[:2], 0.5)
        return torch.rand(origins.shape[:2], generator=jitter, device=jitter.device).to(origins)

    with torch.no_grad():
        coarse = uniform_edges(near, far, proposal, draw_shift())  # [B, R, E]
        density = proposal_density(_query(sdf_at, points_along(origins, directions, coarse)), sharpness)
        fine = importance_edges(coarse, stopped_fraction(density, coarse), importance, draw_shift())
        edges = torch.cat((coarse, fine), dim=-1).sort(dim=-1).values  # [B, R, S + 1]
    points = points_along(origins, directions, edges).flatten(1, 2)  # [B, R * S, 3]
    if difference is None:
        value, color, gradient = _with_gradient(field, points)
    else:
        value, color = field(points)
        gradient = differences(sdf_at, points, difference)
    shape = edges.diff(dim=-1).shape  # [B, R, S]
    value, color, gradient = value.view(shape), color.view(*shape, 3), gradient.view(*shape, 3)
    color = color_gradient * color + (1 - color_gradient) * color.detach()
    normals = F.normalize(gradient, dim=-1)
    weights = render_weights(opacities(value, normals, directions[:, :, None], edges, sharpness))
    return VolumeView(
        opacity=weights.sum(-1),
        depth=(weights * midpoints(edges)).sum(-1),
        rgb=(weights[..., None] * color).sum(-2),
        normal=(weights[..., None] * normals).sum(-2),
        gradients=gradient,
        weights=weights,
        edges=edges,
    )


def _query(sdf_at: SdfAt, points: Tensor) -> Tensor:
    """Evaluate the SDF [B, R, S] at points [B, R, S, 3]."""
    return sdf_at(points.flatten(1, 2)).view(points.shape[:-1])


def _with_gradient(field: FieldAt, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sdf, rgb and the exact SDF gradient at points, with a graph only if gradients are enabled."""
    grad_enabled = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        sdf, rgb = field(points)
        (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=grad_enabled)
    return (sdf, rgb, gradient) if grad_enabled else (sdf.detach(), rgb.detach(), gradient)


def midpoints(edges: Tensor) -> Tensor:
    """Return the midpoints [..., S] of the intervals between edges [..., S + 1]."""
    return (edges[..., 1:] + edges[..., :-1]) / 2


def points_along(origins: Tensor, directions: Tensor, edges: Tensor) -> Tensor:
    """Return the points [..., S, 3] at the interval midpoints of rays [..., 3]."""
    return origins[..., None, :] + midpoints(edges)[..., None] * directions[..., None, :]


def differences(sdf_at: SdfAt, points: Tensor, difference: float) -> Tensor:
    """Return the gradient of an SDF at points [B, M, 3] by central differences: [B, M, 3]."""
    derivatives = []
    for axis in range(3):
        step = difference * F.one_hot(torch.tensor(axis, device=points.device), 3).to(points)
        derivatives.append((sdf_at(points + step) - sdf_at(points - step)) / (2 * difference))
    return torch.stack(derivatives, dim=-1)


def opacities(sdf: Tensor, normals: Tensor, directions: Tensor, edges: Tensor, sharpness: float) -> Tensor:
    """Return the alpha of each interval (NeuS), at least 1e-5.

    The SDF at the ends of an interval is extrapolated from its derivative along the ray, which is clamped to
    at most 0.

    Args:
        sdf: SDF at the midpoints [..., S].
        normals: unit gradients there [..., S, 3].
        directions: ray directions [..., 1, 3] or [..., S, 3].
        edges: [..., S + 1].
        sharpness: s in sigmoid(s * sdf).

    Returns:
        [..., S].
    """
    slope = -F.relu(-(directions * normals).sum(-1))
    half = slope * edges.diff(dim=-1) / 2
    before, after = torch.sigmoid(sharpness * (sdf - half)), torch.sigmoid(sharpness * (sdf + half))
    return ((before - after + _EPS) / (before + _EPS)).clamp(0, 1)


def render_weights(alpha: Tensor) -> Tensor:
    """Return the weights of intervals: alpha [..., S] times the transmittance before each."""
    transmittance = (1 - alpha).cumprod(-1)
    return alpha * F.pad(transmittance[..., :-1], (1, 0), value=1.0)


def proposal_density(sdf: Tensor, sharpness: float) -> Tensor:
    """Return the density [...] of the proposal pass for an SDF [...], assuming perpendicular incidence."""
    half = PROPOSAL_STEP / 2
    before, after = torch.sigmoid(sharpness * (sdf + half)), torch.sigmoid(sharpness * (sdf - half))
    return ((before - after + _EPS) / (before + _EPS)).clamp(0, 1) / PROPOSAL_STEP


def render_patched(
    render: Callable[[Tensor, Tensor], tuple[dict[str, Tensor], Extra]],
    origins: Tensor,
    directions: Tensor,
    patch: int = 40,
    shrink: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], Extra]:
    """Render images at low resolution with one patch at full resolution; differentiable.

    Args:
        render: returns images by name [V, h, w, C] for rays [V, h, w, 3], and any extra value.
        origins, directions: rays of V views [V, H, W, 3]. Low-resolution rays are interpolated, without
            normalising their directions.
        patch: side of the patch in pixels; its position is the same in all views.
        shrink: the low-resolution image has 1 / shrink of the height and width.
        generator: draws the position of the patch (column, then row); None: torch's global generator.

    Returns:
        images by name [V, H, W, C], and the extra value of the low-resolution rendering.
    """
    height, width = origins.shape[1:3]
    if not (0 < patch < height and patch < width and 0 < shrink <= min(height, width)):
        raise ValueError(
            f"a patch of {patch} pixels or shrink={shrink} is invalid for {height} x {width} pixels"
        )
    device = generator.device if generator is not None else "cpu"
    x, y = (
        int(torch.randint(0, side - patch, (1,), generator=generator, device=device))
        for side in (width, height)
    )
    small = [_resize(part, height // shrink, width // shrink) for part in (origins, directions)]
    coarse, extra = render(*small)
    window = slice(None), slice(y, y + patch), slice(x, x + patch)
    detail, _ = render(origins[window], directions[window])
    images = {}
    for name, image in coarse.items():
        images[name] = _resize(image, height, width).clone()
        images[name][window] = detail[name]
    return images, extra


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images [V, H, W, C] bilinearly."""
    resized = F.interpolate(images.movedim(-1, 1), (height, width), mode="bilinear", align_corners=False)
    return resized.movedim(1, -1)
