"""The volume renderer of the full trainer: NeuS weights along each ray, for any differentiable field.

A ray is first cut into even intervals, then finer where a rough pass finds the surface; both sets of edges
are kept. The weights see the sdf and its gradient at each interval's middle. No ray is clipped to the
object's cube. The quick renderer for an sdf on a lattice is in lattice.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.render.sampling import importance_edges, share_before, uniform_edges

SHARPNESS = math.exp(10 * 0.4605)  # 100, nearly: what the released weights were trained with
ROUGH_STEP = 2 * 1.732 / 64  # the step that the rough pass assumes, whatever its intervals are
_LEAST = 1e-5

SdfAt = Callable[[Tensor], Tensor]
FieldAt = Callable[[Tensor], tuple[Tensor, Tensor]]
Extra = TypeVar("Extra")


@dataclass(frozen=True)
class VolumeView:
    """What R rays see in each of B scenes.

    Attributes:
        opacity: sum of the weights [B, R]; never quite 0: each of the S intervals stops 1e-5.
        depth: sum of weight times distance along the ray [B, R].
        rgb: sum of weight times colour [B, R, 3].
        normal: sum of weight times unit normal [B, R, 3].
        gradients: of the sdf, at the samples [B, R, S, 3].
        weights: of the samples [B, R, S].
        edges: distances of the intervals' edges [B, R, S + 1].
    """

    opacity: Tensor
    depth: Tensor
    rgb: Tensor
    normal: Tensor
    gradients: Tensor
    weights: Tensor
    edges: Tensor

    def eikonal(self) -> Tensor:
        """How far the sdf is from a distance: mean of (|gradient| - 1)^2 over the samples, a scalar."""
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
    """Render rays through a field; differentiable in what the field depends on.

    Args:
        field: gives sdf [B, M] (negative inside) and rgb [B, M, 3] at points [B, M, 3].
        origins, directions: rays [B, R, 3]; directions are used as they are, unit or not.
        sdf: gives the sdf alone, cheaper; the rough pass asks it, without gradient, and so do differences.
        sharpness: s in sigmoid(s * sdf).
        proposal, importance: how many intervals the two passes have; S is their sum + 1.
        near, far: where rays begin and end.
        jitter: draws one shift per ray and pass; without, samples lie in the middle of their steps.
        color_gradient: scales the gradient that reaches the colours, 0 to 1; that of the weights is whole.
        difference: take the sdf's gradient by central differences over twice this; None: exactly, by
            autograd, for which the sdf must be twice differentiable. (Planes are with torch 2.15; older
            ones lack the second derivative of grid_sample.)
    """
    if origins.shape != directions.shape or origins.ndim != 3 or origins.shape[-1] != 3:
        raise ValueError(
            f"origins and directions should be of shape [B, R, 3], not {tuple(origins.shape)} and "
            f"{tuple(directions.shape)}"
        )

    def sdf_at(points: Tensor) -> Tensor:
        return field(points)[0] if sdf is None else sdf(points)

    def drawn() -> Tensor:
        if jitter is None:
            return origins.new_full(origins.shape[:2], 0.5)
        return torch.rand(origins.shape[:2], generator=jitter, device=jitter.device).to(origins)

    with torch.no_grad():
        even = uniform_edges(near, far, proposal, drawn())  # [B, R, E]
        density = rough_density(_ask(sdf_at, points_along(origins, directions, even)), sharpness)
        fine = importance_edges(even, share_before(density, even), importance, drawn())
        edges = torch.cat((even, fine), dim=-1).sort(dim=-1).values  # [B, R, S + 1]
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
    weights = weigh(opacities(value, normals, directions[:, :, None], edges, sharpness))
    return VolumeView(
        opacity=weights.sum(-1),
        depth=(weights * middles(edges)).sum(-1),
        rgb=(weights[..., None] * color).sum(-2),
        normal=(weights[..., None] * normals).sum(-2),
        gradients=gradient,
        weights=weights,
        edges=edges,
    )


def _ask(sdf_at: SdfAt, points: Tensor) -> Tensor:
    """The sdf [B, R, S] at points [B, R, S, 3]."""
    return sdf_at(points.flatten(1, 2)).view(points.shape[:-1])


def _with_gradient(field: FieldAt, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sdf, rgb and the sdf's exact gradient at points; a graph is kept only if gradients are wanted."""
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        sdf, rgb = field(points)
        (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=wanted)
    return (sdf, rgb, gradient) if wanted else (sdf.detach(), rgb.detach(), gradient)


def middles(edges: Tensor) -> Tensor:
    """Middles [..., S] of the intervals between edges [..., S + 1]."""
    return (edges[..., 1:] + edges[..., :-1]) / 2


def points_along(origins: Tensor, directions: Tensor, edges: Tensor) -> Tensor:
    """Points [..., S, 3] in the middle of the intervals of rays [..., 3]."""
    return origins[..., None, :] + middles(edges)[..., None] * directions[..., None, :]


def differences(sdf_at: SdfAt, points: Tensor, difference: float) -> Tensor:
    """Gradient of an sdf at points [B, M, 3] by central differences: [B, M, 3]."""
    slopes = []
    for axis in range(3):
        move = difference * F.one_hot(torch.tensor(axis, device=points.device), 3).to(points)
        slopes.append((sdf_at(points + move) - sdf_at(points - move)) / (2 * difference))
    return torch.stack(slopes, dim=-1)


def opacities(sdf: Tensor, normals: Tensor, directions: Tensor, edges: Tensor, sharpness: float) -> Tensor:
    """The share of light that each interval stops, 1e-5 at least.

    Args:
        sdf: at the middles [..., S].
        normals: unit gradients there [..., S, 3].
        directions: of the rays [..., 1, 3] or [..., S, 3].
        edges: [..., S + 1].
        sharpness: s in sigmoid(s * sdf).

    Returns:
        [..., S]. The sdf at an interval's ends is told from its slope along the ray; where the ray leaves
        the solid the interval is taken as level.
    """
    slope = -F.relu(-(directions * normals).sum(-1))
    half = slope * edges.diff(dim=-1) / 2
    before, after = torch.sigmoid(sharpness * (sdf - half)), torch.sigmoid(sharpness * (sdf + half))
    return ((before - after + _LEAST) / (before + _LEAST)).clamp(0, 1)


def weigh(alpha: Tensor) -> Tensor:
    """How much each interval gives to its ray: its alpha [..., S] times what the ones before let through."""
    passed = (1 - alpha).cumprod(-1)
    return alpha * F.pad(passed[..., :-1], (1, 0), value=1.0)


def rough_density(sdf: Tensor, sharpness: float) -> Tensor:
    """Density [...] that the rough pass gives to an sdf [...], as if each ray met the surface head-on."""
    half = ROUGH_STEP / 2
    before, after = torch.sigmoid(sharpness * (sdf + half)), torch.sigmoid(sharpness * (sdf - half))
    return ((before - after + _LEAST) / (before + _LEAST)).clamp(0, 1) / ROUGH_STEP


def disparity(view_depth: Tensor, opacity: Tensor, distance: Tensor | float) -> Tensor:
    """What a depth teacher is shown: 1 where the object's ball begins, 0 where it ends and behind it.

    Args:
        view_depth: sum of weight times distance [...], as `VolumeView.depth`.
        opacity: [...]; it counts again: the depth is mixed with that of the far side of the ball.
        distance: of the camera from the origin, in world units.
    """
    reach = math.sqrt(3)
    far = distance + reach
    mixed = view_depth * opacity + far * (1 - opacity)
    return ((far - mixed) / (2 * reach)).clamp(0, 1)


def camera_normals(normal: Tensor, opacity: Tensor, c2w: Tensor) -> Tensor:
    """What a normal teacher is shown, in [0, 1].

    In the camera's axes with x negated, (n + 1) / 2: a surface that faces the camera is (0.5, 0.5, 1), and so
    is the background.

    Args:
        normal: in world axes, of any length [..., 3].
        opacity: [...].
        c2w: camera-to-world matrices that broadcast with these [..., 4, 4] (or [..., 3, 3]).
    """
    turned = (F.normalize(normal, dim=-1)[..., None, :] @ c2w[..., :3, :3]).squeeze(-2)
    shown = (F.normalize(turned * turned.new_tensor([-1.0, 1.0, 1.0]), dim=-1) + 1) / 2
    return torch.lerp(shown.new_tensor([0.5, 0.5, 1.0]), shown, opacity[..., None])


def sparsity(opacity: Tensor) -> Tensor:
    """How much there is to see, with a slope at nothing too: mean of sqrt(opacity^2 + 0.01), a scalar."""
    return (opacity.square() + 0.01).sqrt().mean()


def render_patched(
    render: Callable[[Tensor, Tensor], tuple[dict[str, Tensor], Extra]],
    origins: Tensor,
    directions: Tensor,
    patch: int = 40,
    shrink: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[dict[str, Tensor], Extra]:
    """Whole images at a low density of rays, with one window of them at full density; differentiable.

    Args:
        render: gives images by name [V, h, w, C] for rays [V, h, w, 3], and anything else.
        origins, directions: rays of V views [V, H, W, 3]. The few rays are interpolated between them, and
            their directions are not made unit again.
        patch: side of the window, which is the same in all views, in pixels.
        shrink: the whole image is rendered at 1 / shrink of its height and width.
        generator: draws where the window lies (column, then row); None: torch's own.

    Returns:
        images by name [V, H, W, C], and what else `render` gave for the whole image.
    """
    height, width = origins.shape[1:3]
    if not (0 < patch < height and patch < width and 0 < shrink <= min(height, width)):
        raise ValueError(
            f"no window of {patch} pixels and no shrinking by {shrink} fit {height} x {width} pixels"
        )
    device = generator.device if generator is not None else "cpu"
    x, y = (
        int(torch.randint(0, side - patch, (1,), generator=generator, device=device))
        for side in (width, height)
    )
    small = [_resize(part, height // shrink, width // shrink) for part in (origins, directions)]
    whole, extra = render(*small)
    window = slice(None), slice(y, y + patch), slice(x, x + patch)
    detail, _ = render(origins[window], directions[window])
    images = {}
    for name, image in whole.items():
        images[name] = _resize(image, height, width).clone()
        images[name][window] = detail[name]
    return images, extra


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    """Images [V, H, W, C] at another size, bilinearly."""
    resized = F.interpolate(images.movedim(-1, 1), (height, width), mode="bilinear", align_corners=False)
    return resized.movedim(1, -1)
