"""The triplane field of one asset: six feature planes and the MLPs that decode them, all optimized."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from triplaneturbo.mesh.finish import mesh_of_field
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.representations.base import RenderOutput
from triplaneturbo.representations.field_fit import fit_field
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField
from triplaneturbo.representations.triplane_rendering import surface, volume
from triplaneturbo.request import Request


@dataclass(frozen=True)
class TriplaneOptions:
    """Renderings and learning rates of a triplane asset.

    Attributes:
        size: image size in pixels.
        stride, surface_stride: the volume and the surface rendering have every stride-th pixel along both
            sides, with a random offset at each step.
        nodes: resolution of the SDF grid along each side.
        sharpness: sharpness of the volume rendering; see `render_grid`.
        color_shrink: factor on the gradient of colours in the volume rendering.
        shape_shrink: factor on the gradient of the shape through the surface's normals and depths.
        eikonal: weight of the Eikonal loss.
        plane_rate, mlp_rate: learning rates of the planes and of the MLPs.
    """

    size: int = 128
    stride: int = 2
    surface_stride: int = 1
    nodes: int = 64
    sharpness: float = 80.0
    color_shrink: float = 1.0
    shape_shrink: float = 0.0
    eikonal: float = 20.0
    plane_rate: float = 0.14
    mlp_rate: float = 3e-3

    @classmethod
    def for_size(cls, size: int) -> TriplaneOptions:
        """Return the options of an image size: up to 128 those of the small model, above of the full one.

        Those of the full model are the renderings that it is trained with; its rates have not been tuned.
        """
        if size <= 128:
            return cls(size=size)
        return cls(
            size=size, stride=4, nodes=128, sharpness=100.0, color_shrink=0.01, plane_rate=5e-3, mlp_rate=5e-4
        )


class TriplaneAsset:
    """A triplane field as a `Representation`, with a volume and a surface rendering.

    The MLP of the grid offsets is kept as it is: the volume rendering, which trains the shape, does not
    see it.

    Args:
        planes: feature planes [6, C, H, W]; copied.
        fields: the MLPs; copied.
        options: renderings and learning rates.
        frame: units and position that exported meshes get; None: those of model space.
    """

    def __init__(
        self,
        planes: Tensor,
        fields: FieldDecoder,
        options: TriplaneOptions | None = None,
        frame: Frame | None = None,
    ) -> None:
        self.options, self.frame = options or TriplaneOptions(), frame
        self.planes = planes.detach().float().clone().requires_grad_()
        self.fields = deepcopy(fields).float().requires_grad_(True)
        self.fields.offset.requires_grad_(False)
        self.device = planes.device

    @classmethod
    def from_field(
        cls, field: TriplaneField, size: int, rng: torch.Generator, request: Request
    ) -> TriplaneAsset:
        """Return the asset of a generated field, rendered at size^2 pixels; the rest is not used."""
        return cls(field.planes, field.fields, TriplaneOptions.for_size(size))

    @classmethod
    def from_mesh(
        cls, mesh: Mesh, size: int, rng: torch.Generator, request: Request, blank: TriplaneField
    ) -> TriplaneAsset:
        """Fit a field to a given mesh, with the colours of its texture or vertices.

        Raises:
            UserError: the mesh has no surface, encloses no volume, or has positions that are not finite.
        """
        frame = Frame.of(mesh)
        field = fit_field(mesh.replace(vertices=frame.fit(mesh.vertices)), blank, rng)
        return cls(field.planes, field.fields, TriplaneOptions.for_size(size), frame)

    def parameters(self) -> list[dict[str, Any]]:
        """See `Representation`."""
        mlps = [*self.fields.sdf.parameters(), *self.fields.color.parameters()]
        return [
            {"name": "planes", "params": [self.planes], "lr": self.options.plane_rate},
            {"name": "mlps", "params": mlps, "lr": self.options.mlp_rate},
        ]

    def render(self, scenes: SceneBatch, rng: torch.Generator) -> RenderOutput:
        """See `Representation`; the renderings are "volume" and "surface"."""
        options = self.options
        planes = self.planes.expand(len(scenes.prompts), -1, -1, -1, -1)
        # Vary the grid's extent, so that the field is optimized between nodes and in the corners, too.
        half = 0.86 + 0.14 * float(torch.rand((), generator=rng))
        view = volume(
            self.fields, planes, scenes, size=options.size, stride=options.stride,
            first=_offset(options.stride, rng), nodes=options.nodes, half=half, sharpness=options.sharpness,
            color_shrink=options.color_shrink, jitter=rng,
        )  # fmt: skip
        flat = surface(
            self.fields, planes, scenes, view.sdf, half, options.size, options.surface_stride,
            _offset(options.surface_stride, rng), options.shape_shrink,
        )  # fmt: skip
        return RenderOutput({"volume": view.seen, "surface": flat}, options.eikonal * view.eikonal)

    def after_step(
        self, optimizer: torch.optim.Optimizer, iteration: int, progress: float, rng: torch.Generator
    ) -> None:
        """See `Representation`; a field has no constraints."""

    def field(self) -> TriplaneField:
        """Return a snapshot of the field for queries."""
        return TriplaneField(self.planes.detach().clone(), deepcopy(self.fields).requires_grad_(False))

    def export(self, request: Request) -> Mesh:
        """See `Representation`: the same extraction and texture baking as for a generated field."""
        mesh = mesh_of_field(self.field(), request)
        return mesh if self.frame is None else self.frame.restored(mesh)

    def fingerprint(self) -> dict[str, Any]:
        """See `Representation`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """See `Representation`."""
        return {"planes": self.planes.detach(), "fields": self.fields.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Representation`."""
        self.planes.copy_(state["planes"])
        self.fields.load_state_dict(state["fields"])


def _offset(stride: int, rng: torch.Generator) -> tuple[int, int]:
    """Draw the first pixel of a strided image."""
    row, column = torch.randint(stride, (2,), generator=rng).tolist()
    return row, column
