"""3D Gaussians: an explicit representation of a scene that splatting renders (Kerbl et al. 2023).

Each Gaussian has a mean, three standard deviations along the axes of its rotation, an opacity and a
colour that does not depend on the view (spherical harmonics of degree 0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.utils import quaternions as rotations

SH_0 = 0.28209479177387814
"""The constant spherical harmonic: rgb = 0.5 + SH_0 * (coefficient of degree 0)."""


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of LucidDreamer (arXiv 2311.11284).

    Attributes:
        means: per unit of the scene's extent.
        log_scales, quaternions, opacity_logits: in the units of these parameters.
        colors: in units of rgb; 5e-3 for coefficients of degree 0.
    """

    means: float = 1.6e-4
    log_scales: float = 5e-3
    quaternions: float = 1e-3
    opacity_logits: float = 0.05
    colors: float = 5e-3 * SH_0


class Gaussians(nn.Module):
    """N Gaussians with trainable parameters.

    Attributes:
        means: world positions [N, 3].
        log_scales: logarithms of the standard deviations along the own axes [N, 3].
        quaternions: rotations from the own axes to the world (w, x, y, z) of any non-zero length [N, 4].
        opacity_logits: [N]; the opacity at the mean is their sigmoid.
        colors: sRGB [N, 3]. An optimizer may leave [0, 1]: see `constrain_`.
    """

    means: nn.Parameter
    log_scales: nn.Parameter
    quaternions: nn.Parameter
    opacity_logits: nn.Parameter
    colors: nn.Parameter

    def __init__(
        self,
        means: Tensor,
        log_scales: Tensor,
        quaternions: Tensor,
        opacity_logits: Tensor,
        colors: Tensor,
    ) -> None:
        """Copy the parameters.

        Raises:
            ValueError: a shape is wrong.
        """
        super().__init__()
        count = len(means)
        for name, values, shape in (
            ("means", means, (count, 3)),
            ("log_scales", log_scales, (count, 3)),
            ("quaternions", quaternions, (count, 4)),
            ("opacity_logits", opacity_logits, (count,)),
            ("colors", colors, (count, 3)),
        ):
            if tuple(values.shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, not {list(values.shape)}")
            setattr(self, name, nn.Parameter(values.detach().clone()))

    @classmethod
    def from_points(
        cls,
        points: Tensor,
        colors: Tensor,
        spacing: Tensor | float,
        normals: Tensor | None = None,
        *,
        opacity: float = 0.9,
        thickness: float = 0.1,
    ) -> Gaussians:
        """Place one Gaussian on each point: a disc on the surface, or a ball if there are no normals.

        Args:
            points: samples of a surface [N, 3].
            colors: their sRGB colours in [0, 1] [N, 3].
            spacing: distance between neighbouring points, a number or [N]; the standard deviation in the
                surface is half of it.
            normals: unit normals [N, 3].
            opacity: initial opacity, between 0 and 1.
            thickness: standard deviation along the normal, as a fraction of that in the surface.
        """
        spacing = torch.as_tensor(spacing, dtype=points.dtype, device=points.device)
        scales = (spacing.expand(len(points)) / 2)[:, None].repeat(1, 3)  # [N, 3]
        if normals is None:
            quaternions = points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(points), 1)
        else:
            quaternions = rotations.from_z_axis(normals)
            scales[:, 2] *= thickness
        logits = torch.logit(points.new_full((len(points),), opacity))
        return cls(points, scales.log(), quaternions, logits, colors)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """Standard deviations along the own axes [N, 3]."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities at the means, in (0, 1) [N]."""
        return self.opacity_logits.sigmoid()

    def covariances(self) -> Tensor:
        """Return the world-space covariance matrices [N, 3, 3]."""
        axes = rotations.to_matrices(self.quaternions) * self.scales[:, None]  # [N, 3, 3]
        return axes @ axes.mT

    def parameter_groups(
        self,
        extent: float,
        rates: LearningRates | None = None,
    ) -> list[dict[str, object]]:
        """Return one named group per parameter for an optimizer.

        Args:
            extent: size of the scene in world units, a factor on the learning rate of the means.
            rates: LearningRates() by default.
        """
        rates = LearningRates() if rates is None else rates
        return [
            {
                "name": name,
                "params": [parameter],
                "lr": getattr(rates, name) * (extent if name == "means" else 1.0),
            }
            for name, parameter in self.named_parameters()
        ]

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp the colours to [0, 1] and normalize the quaternions; call it after each optimizer step.

        A clamp in the renderer instead would leave colours beyond the range without a gradient.
        """
        self.colors.clamp_(0, 1)
        self.quaternions.copy_(F.normalize(self.quaternions, dim=-1))

    @torch.no_grad()
    def replace_rows(
        self, keep: Tensor, added: Iterable[dict[str, Tensor]], optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Keep some Gaussians and append others; the parameters become new tensors.

        Args:
            keep: indices of the Gaussians to keep [K].
            added: blocks of new Gaussians: values [M, ...] for each parameter's name.
            optimizer: holds the parameters; they are exchanged in its groups. State of a parameter's
                shape (Adam's moments) is carried by the kept rows and zero for the new ones. Or None.
        """
        added = list(added)
        for name, old in list(self.named_parameters()):
            values = torch.cat((old[keep], *(block[name] for block in added)))
            new = nn.Parameter(values, requires_grad=old.requires_grad)
            setattr(self, name, new)
            if optimizer is not None:
                _exchange(optimizer, old, new, keep)


def _exchange(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    keep: Tensor,
) -> None:
    """Put `new` in the place of `old` in an optimizer; see `Gaussians.replace_rows`."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state is None:
        return
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == old.shape:
            zeros = value.new_zeros(len(new) - len(keep), *value.shape[1:])
            state[key] = torch.cat((value[keep], zeros))
    optimizer.state[new] = state
