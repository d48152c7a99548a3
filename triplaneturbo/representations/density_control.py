"""Adaptive density control of 3D Gaussians (Kerbl et al. 2023, section 5.2).

Gaussians whose images pull strongly at their positions are too few (small ones are cloned) or too coarse
(large ones are split); transparent and oversized ones are pruned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.representations.gaussians import Gaussians
from triplaneturbo.utils import quaternions as rotations

SPLIT_SHRINK = 1.6  # phi of section 5.2
RESET_OPACITY = 0.01


@dataclass(frozen=True)
class DensityOptions:
    """Thresholds of densification and pruning.

    Attributes:
        min_gradient: mean norm of the view-space gradient from which a Gaussian is cloned or split
            (LucidDreamer: 7.5e-4; Kerbl et al.: 2e-4).
        clone_scale: largest standard deviation, as a fraction of the scene's extent, of a Gaussian that
            is cloned; larger ones are split.
        min_opacity: opacity below which a Gaussian is pruned.
        max_scale: standard deviation, as a fraction of the extent, above which one is pruned, or None.
        max_count: no Gaussians are added beyond this number; None: no limit.
    """

    min_gradient: float = 7.5e-4
    clone_scale: float = 0.01
    min_opacity: float = 0.005
    max_scale: float | None = 0.1
    max_count: int | None = None


class ViewSpaceGradients:
    """Running mean, per Gaussian, of the norm of the loss's gradient at its projected mean."""

    def __init__(self, count: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(count, device=device)
        self.views = torch.zeros(count, device=device)

    @torch.no_grad()
    def add(self, gradient: Tensor, visible: Tensor, height: int, width: int) -> None:
        """Add the views of one iteration.

        Args:
            gradient: `means2d.grad` of a rendering [V, N, 2], in pixels, of a loss averaged over views.
            visible: where a Gaussian touches the image [V, N].
            height, width: image size; norms are those of gradients in [-1, 1] image coordinates.
        """
        size = gradient.new_tensor([width / 2, height / 2]) * len(gradient)
        norms = (gradient * size).norm(dim=-1) * visible  # [V, N]
        self.total += norms.sum(0).to(self.total)
        self.views += visible.sum(0).to(self.views)

    def mean(self) -> Tensor:
        """Return the mean norms [N]; 0 for Gaussians that no view has shown."""
        return self.total / self.views.clamp_min(1)


@torch.no_grad()
def densify(
    gaussians: Gaussians,
    gradients: ViewSpaceGradients,
    extent: float,
    options: DensityOptions,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer | None = None,
) -> tuple[int, int]:
    """Clone small and split large Gaussians with large view-space gradients.

    A clone is an exact copy without optimizer state, which separates it from its original. A split
    replaces a Gaussian by two, drawn from it and 1.6 times smaller. Start new `gradients` afterwards.

    Args:
        extent: size of the scene in world units.
        generator: on the CPU, draws the positions of split Gaussians.

    Returns:
        the numbers of cloned and of split Gaussians.
    """
    norms = gradients.mean()
    growing = norms >= options.min_gradient
    if options.max_count is not None:
        # Each adds one Gaussian; the largest gradients come first.
        room = max(0, options.max_count - len(gaussians))
        chosen = torch.argsort(norms, descending=True, stable=True)[:room]
        growing &= torch.zeros_like(growing).index_fill(0, chosen, True)
    large = gaussians.scales.amax(1) > options.clone_scale * extent
    cloned = torch.nonzero(growing & ~large)[:, 0]
    split = torch.nonzero(growing & large)[:, 0]
    keep = torch.nonzero(~(growing & large))[:, 0]
    values = dict(gaussians.named_parameters())
    clones = {name: value[cloned] for name, value in values.items()}
    halves = {name: value[split].repeat(2, *(1,) * (value.ndim - 1)) for name, value in values.items()}
    scales = halves["log_scales"].exp()
    axes = rotations.to_matrices(halves["quaternions"]) * scales[:, None]  # [2S, 3, 3]
    drawn = torch.randn(2 * len(split), 3, generator=generator).to(axes)
    halves["means"] = halves["means"] + (axes @ drawn[..., None])[..., 0]
    halves["log_scales"] = (scales / SPLIT_SHRINK).log()
    gaussians.replace_rows(keep, (clones, halves), optimizer)
    return len(cloned), len(split)


@torch.no_grad()
def prune(
    gaussians: Gaussians,
    extent: float,
    options: DensityOptions,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    """Remove Gaussians that are almost transparent or very large; return their number."""
    useful = gaussians.opacities >= options.min_opacity
    if options.max_scale is not None:
        useful &= gaussians.scales.amax(1) <= options.max_scale * extent
    removed = len(gaussians) - int(useful.sum())
    if removed:
        gaussians.replace_rows(torch.nonzero(useful)[:, 0], (), optimizer)
    return removed


@torch.no_grad()
def reset_opacity(gaussians: Gaussians, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Lower all opacities to at most 0.01, so that only Gaussians that the views need regain theirs.

    The optimizer's state of the opacities (of their shape) becomes zero.
    """
    limit = torch.logit(gaussians.opacity_logits.new_tensor(RESET_OPACITY))
    gaussians.opacity_logits.copy_(torch.minimum(gaussians.opacity_logits, limit))
    if optimizer is not None:
        for value in optimizer.state.get(gaussians.opacity_logits, {}).values():
            if isinstance(value, Tensor) and value.shape == gaussians.opacity_logits.shape:
                value.zero_()
