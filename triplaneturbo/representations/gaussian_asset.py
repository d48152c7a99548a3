"""3D Gaussians of one asset, with adaptive density control, and their export as a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.finish import finished_mesh
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import drop_floaters, tidy
from triplaneturbo.mesh.surface_samples import sample_surface
from triplaneturbo.mesh.texture import paint
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import trilinear
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.render.splatting.rasterizer import rasterize_gaussians
from triplaneturbo.representations.base import RenderOutput
from triplaneturbo.representations.density_control import (
    DensityOptions,
    ViewSpaceGradients,
    densify,
    prune,
    reset_opacity,
)
from triplaneturbo.representations.depth_fusion import fuse_depths
from triplaneturbo.representations.gaussians import Gaussians, LearningRates
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request

# Export: the views whose depths are fused, their size in pixels, and the grid's default resolution.
_FUSED_AZIMUTHS, _FUSED_ELEVATIONS, _FUSED_SIZE = 8, (-45.0, 0.0, 45.0), 256
_RESOLUTION = 128
_NEIGHBOURS = 8  # Gaussians that a texel's colour is blended from


@dataclass(frozen=True)
class GaussianOptions:
    """Renderings, learning rates and density control of a Gaussian asset.

    Attributes:
        size: image size in pixels.
        extent: size of the scene in world units, a factor on the learning rate of the means.
        rates: learning rates.
        rate_factor: factor on the rates, except that of the opacities: LucidDreamer's are for 5000 steps.
        density: thresholds of densification and pruning.
        densify_from, densify_every: iterations; LucidDreamer's.
        densify_until: the share of the run after which density control ends; LucidDreamer's 3000 of 5000.
        reset_every: iterations between resets of the opacities.
        total_variation: weight of the total variation of the rendered colours.
        scale_loss: weight of the mean standard deviation of the Gaussians, in world units.
    """

    size: int = 128
    extent: float = 1.0
    rates: LearningRates = field(default_factory=LearningRates)
    rate_factor: float = 10.0
    density: DensityOptions = field(default_factory=DensityOptions)
    densify_from: int = 100
    densify_every: int = 100
    densify_until: float = 0.6
    reset_every: int = 300
    total_variation: float = 0.0
    scale_loss: float = 0.0

    @classmethod
    def for_size(cls, size: int) -> GaussianOptions:
        """Return the options of an image size: above 128 with LucidDreamer's losses, which noisy scores need.

        There, the number of Gaussians is limited to two per pixel, four times as many as at the start, so
        that the memory is known.

        The closed-form teachers of the small model, whose images have 128 pixels, hold the truth instead.
        """
        if size <= 128:
            return cls(size=size)
        density = DensityOptions(max_count=2 * size**2)
        return cls(size=size, density=density, total_variation=1.0, scale_loss=1.0)


class GaussianAsset:
    """3D Gaussians as a `Representation`, with one rendering, "splatting".

    Args:
        gaussians: optimized in place.
        options: renderings, learning rates and density control.
        frame: units and position that exported meshes get; None: those of model space.
    """

    def __init__(
        self, gaussians: Gaussians, options: GaussianOptions | None = None, frame: Frame | None = None
    ) -> None:
        self.gaussians, self.options, self.frame = gaussians, options or GaussianOptions(), frame
        self.device = gaussians.means.device
        self._gradients = ViewSpaceGradients(len(gaussians), self.device)
        self._seen: list[tuple[Tensor, Tensor]] = []  # means2d and visible of the last renderings

    @classmethod
    def from_field(
        cls, field: TriplaneField, size: int, rng: torch.Generator, request: Request
    ) -> GaussianAsset:
        """Place discs on the surface of a generated field, half as many as an image has pixels.

        Raises:
            EmptySurfaceError: the field has no surface.
        """
        mesh, _ = drop_floaters(tidy(extract(field, field.fields.config.grid_resolution).mesh()))
        return cls._on_surface(paint(mesh, field), size, rng, field.device)

    @classmethod
    def from_mesh(
        cls, mesh: Mesh, size: int, rng: torch.Generator, request: Request, blank: TriplaneField
    ) -> GaussianAsset:
        """Place discs on the surface of a given mesh, with the colours of its texture or vertices.

        Raises:
            UserError: the surface has no area, or positions are not finite.
        """
        frame = Frame.of(mesh)
        asset = cls._on_surface(mesh.replace(vertices=frame.fit(mesh.vertices)), size, rng, blank.device)
        asset.frame = frame
        return asset

    @classmethod
    def _on_surface(cls, mesh: Mesh, size: int, rng: torch.Generator, device: torch.device) -> GaussianAsset:
        samples = sample_surface(mesh, size**2 // 2, rng)
        # 1.5 times the spacing: discs overlap, so that the surface is opaque.
        gaussians = Gaussians.from_points(
            samples.points, samples.colors, 1.5 * samples.spacing, samples.normals, opacity=0.9
        )
        return cls(gaussians.to(device), GaussianOptions.for_size(size))

    def parameters(self) -> list[dict[str, Any]]:
        """See `Representation`."""
        own, factor = self.options.rates, self.options.rate_factor
        rates = replace(
            own,
            means=factor * own.means,
            log_scales=factor * own.log_scales,
            quaternions=factor * own.quaternions,
            colors=factor * own.colors,
        )
        return self.gaussians.parameter_groups(self.options.extent, rates)

    def render(self, scenes: SceneBatch, rng: torch.Generator) -> RenderOutput:
        """See `Representation`; nothing is random."""
        own, size = self.gaussians, self.options.size
        parts, self._seen = [], []
        for scene in range(len(scenes.prompts)):
            view = rasterize_gaussians(
                own.means, own.quaternions, own.scales, own.opacities, own.colors,
                scenes.cameras[scene * scenes.views : (scene + 1) * scenes.views], size, size,
                scenes.background[scene],
            )  # fmt: skip
            if view.means2d.requires_grad:
                view.means2d.retain_grad()
                self._seen.append((view.means2d, view.visible))
            parts.append((view.rgb, view.opacity, view.normal, view.depth))
        rgb, opacity, normal, depth = (torch.stack(part) for part in zip(*parts, strict=True))
        loss = 0 * opacity.mean()
        if self.options.total_variation:
            loss = loss + self.options.total_variation * total_variation(rgb)
        if self.options.scale_loss:
            loss = loss + self.options.scale_loss * own.scales.mean()
        return RenderOutput({"splatting": Renderings(rgb, opacity, normal, depth)}, loss)

    def after_step(
        self, optimizer: torch.optim.Optimizer, iteration: int, progress: float, rng: torch.Generator
    ) -> None:
        """See `Representation`: clamp colours, and every `densify_every` iterations control the density."""
        options, own = self.options, self.gaussians
        own.constrain_()
        for means2d, visible in self._seen:
            if means2d.grad is not None:
                self._gradients.add(means2d.grad, visible, options.size, options.size)
        self._seen = []
        if iteration < options.densify_from or progress > options.densify_until:
            return
        if iteration % options.densify_every == 0:
            densify(own, self._gradients, options.extent, options.density, rng, optimizer)
            prune(own, options.extent, options.density, optimizer)
            self._gradients = ViewSpaceGradients(len(own), self.device)
        if iteration % options.reset_every == 0:
            reset_opacity(own, optimizer)

    def export(self, request: Request) -> Mesh:
        """See `Representation`: depths from all sides are fused into a grid, whose surface is extracted.

        Colours are blended from the Gaussians next to each texel. The Gaussians themselves can be saved with
        `mesh.io.splat_ply.encode_splats`.
        """
        resolution = request.resolution or _RESOLUTION
        fused = FusedGaussians(self.gaussians, resolution)
        vertices, faces = marching_cubes(fused.grid)
        if not len(faces):
            raise EmptySurfaceError
        mesh = finished_mesh(Mesh(vertices.float().cpu(), faces.cpu()), fused, request, resolution)
        return mesh if self.frame is None else self.frame.restored(mesh)

    def fingerprint(self) -> dict[str, Any]:
        """See `Representation`: the weights of its losses, which small images do not have."""
        losses = {"total_variation": self.options.total_variation, "scale_loss": self.options.scale_loss}
        return {name: weight for name, weight in losses.items() if weight}

    def state_dict(self) -> dict[str, Any]:
        """See `Representation`."""
        return {
            "gaussians": {name: value.detach() for name, value in self.gaussians.named_parameters()},
            "gradients": {"total": self._gradients.total, "views": self._gradients.views},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Representation`; the number of Gaussians may change."""
        self.gaussians = Gaussians(
            **{name: value.to(self.device) for name, value in state["gaussians"].items()}
        )
        self._gradients = ViewSpaceGradients(len(self.gaussians), self.device)
        self._gradients.total = state["gradients"]["total"].to(self.device)
        self._gradients.views = state["gradients"]["views"].to(self.device)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of images [..., H, W, C], a scalar.

    It is the sum of the means of both directions.
    """
    return images.diff(dim=-3).abs().mean() + images.diff(dim=-2).abs().mean()


class FusedGaussians:
    """A snapshot of 3D Gaussians as a field with a signed distance and colours, for mesh extraction.

    Args:
        gaussians: not modified.
        resolution: nodes along each side of the grid.

    Attributes:
        device: device of the queries.
        grid: truncated SDF [R, R, R]; see `fuse_depths`.
    """

    @torch.no_grad()
    def __init__(self, gaussians: Gaussians, resolution: int) -> None:
        self.device = gaussians.means.device
        azimuths = [360 * k / _FUSED_AZIMUTHS for k in range(_FUSED_AZIMUTHS)] * len(_FUSED_ELEVATIONS)
        elevations = np.repeat(_FUSED_ELEVATIONS, _FUSED_AZIMUTHS).tolist()
        cameras = orbit([*azimuths, 0.0, 0.0], [*elevations, 90.0, -90.0], 3.2, 60.0).to(self.device)
        depths, cosines, opacities = [], [], []
        for camera in (cameras[i] for i in range(len(cameras))):
            view = rasterize_gaussians(
                gaussians.means, gaussians.quaternions, gaussians.scales, gaussians.opacities,
                gaussians.colors, camera, _FUSED_SIZE, _FUSED_SIZE,
            )  # fmt: skip
            _, directions = camera.rays(_FUSED_SIZE, _FUSED_SIZE)
            cosine = -(view.normal * directions).sum(-1) / view.opacity.clamp_min(1e-3)  # [1, H, W]
            depths.append(view.depth[0])
            cosines.append(cosine[0].clamp(0, 1))
            opacities.append(view.opacity[0])
        self.grid = fuse_depths(
            torch.stack(depths),
            torch.stack(cosines),
            torch.stack(opacities),
            cameras,
            resolution,
            8 / (resolution - 1),
        )
        self._means, self._colors = gaussians.means.detach(), gaussians.colors.detach()
        self._opacities = gaussians.opacities.detach()
        self._inverses = torch.linalg.inv(gaussians.covariances().detach())  # [N, 3, 3]
        self._tree = cKDTree(self._means.cpu().numpy())

    def sdf(self, points: Tensor) -> Tensor:
        """Interpolate the truncated SDF at points [N, 3]: [N]."""
        return trilinear(self.grid[None], points[None].to(self.grid))[0]

    def rgb(self, points: Tensor) -> Tensor:
        """Return the mean colour of the nearest Gaussians at points [N, 3], by opacity and density."""
        count = min(_NEIGHBOURS, len(self._means))
        _, index = self._tree.query(points.detach().cpu().numpy(), k=list(range(1, count + 1)))
        near = torch.from_numpy(index).to(self.device)  # [N, K]
        offset = points[:, None].to(self._means) - self._means[near]  # [N, K, 3]
        q = torch.einsum("nki,nkij,nkj->nk", offset, self._inverses[near], offset)
        # The second term decides where a point is outside of all of them.
        weights = self._opacities[near] * ((-q / 2).exp() + 1e-6 / (1 + q))
        return (weights[..., None] * self._colors[near]).sum(1) / weights.sum(1, keepdim=True)
