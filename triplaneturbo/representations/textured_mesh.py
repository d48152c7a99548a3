"""The texture of a given mesh, optimized while its geometry and texture coordinates stay as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.finish import mesh_of_field
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.mesh.mesh import Mesh, face_normals
from triplaneturbo.mesh.texture import bake_colors
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.render.colors import sample
from triplaneturbo.render.rasterizer import interpolate, rasterize
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.base import RenderOutput
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request

_GREY = 0.5
_EDGE = 0.02  # colours are kept this far from black and white at the start, where sigmoids have no gradient
_FRAME_WIDTH = 3.0  # world units that an image shows at the distance of the object, about
_LARGEST = 4096  # texels per side of a texture that is optimized


@dataclass(frozen=True)
class TextureOptions:
    """Renderings and learning rates of a texture.

    Attributes:
        size: image size in pixels.
        texture_size: texels per side if the mesh has no texture of its own.
        levels: resolutions of the pyramid, each half the one before; the finest one has about two texels per
            pixel of an image, as finer ones would learn nothing but the positions of the pixels.
        rate: learning rate of the logits.
    """

    size: int = 128
    texture_size: int = 1024
    levels: int = 5
    rate: float = 3e-2


class TexturedMesh:
    """A mesh whose texture is optimized, as a `Representation` with one rendering, "mesh".

    The texture is the sigmoid of a sum of images of several resolutions (a Laplacian pyramid), so that a
    texel that no pixel hits learns with its surroundings. The rendering is unlit. It has no normals or
    depths, since these do not depend on the texture: only teachers that read colours can refine it.

    Args:
        mesh: any mesh with faces. Without texture coordinates, it is unwrapped; without a texture, it starts
            with its vertex colours, or grey.
        options: renderings and learning rates.
        device: device of the texture.

    Raises:
        UserError: the mesh has no faces, or has positions or texture coordinates that are not finite.
    """

    def __init__(
        self,
        mesh: Mesh,
        options: TextureOptions | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.options, self.device = options or TextureOptions(), device or mesh.vertices.device
        if mesh.uv is None:
            mesh = unwrap(mesh, texture_size=self.options.texture_size)
        self.mesh = mesh
        self._vertices = Frame.of(mesh).fit(mesh.vertices).to(self.device)
        self._faces = mesh.faces.to(self.device)
        assert mesh.uv is not None
        if not torch.isfinite(mesh.uv).all():
            raise UserError("The mesh has texture coordinates that are not finite numbers; unwrap it again.")
        self._uv = mesh.uv.float().to(self.device)
        self._given = _initial(mesh, self.options.texture_size).to(self.device)  # [H, W, 3]
        self._start = torch.logit(self._given.clamp(_EDGE, 1 - _EDGE))
        height, width = self._start.shape[:2]
        finest = self._finest_level(height * width)
        self.pyramid = [
            torch.zeros(
                max(1, height >> level), max(1, width >> level), 3, device=self.device
            ).requires_grad_()
            for level in range(finest, finest + self.options.levels)
        ]

    def _finest_level(self, texels: int) -> int:
        """Return the number of halvings after which a texel covers about half the surface of a pixel."""
        surface = float(face_normals(self._vertices, self._faces).norm(dim=1).sum()) / 2
        a, b, c = self._uv[self._faces].unbind(1)
        covered = float(torch.linalg.det(torch.stack((b - a, c - a), 1)).abs().sum()) / 2
        pixel = (_FRAME_WIDTH / self.options.size) ** 2
        texel = surface / max(covered * texels, 1.0)
        return max(0, round(math.log2(max(pixel / 2 / max(texel, 1e-12), 1)) / 2))

    @classmethod
    def from_field(
        cls, field: TriplaneField, size: int, rng: torch.Generator, request: Request
    ) -> TexturedMesh:
        """Return the texture of a generated field's mesh, rendered at size^2 pixels; `rng` is not used.

        Raises:
            EmptySurfaceError: the field has no surface.
        """
        mesh = mesh_of_field(field, request)
        return cls(mesh, TextureOptions(size, request.texture_size), field.device)

    @classmethod
    def from_mesh(
        cls, mesh: Mesh, size: int, rng: torch.Generator, request: Request, blank: TriplaneField
    ) -> TexturedMesh:
        """Return the texture of a given mesh, rendered at size^2 pixels; `rng` is not used."""
        return cls(mesh, TextureOptions(size, request.texture_size), blank.device)

    def parameters(self) -> list[dict[str, Any]]:
        """See `Representation`."""
        return [{"name": "texture", "params": self.pyramid, "lr": self.options.rate}]

    def render(self, scenes: SceneBatch, rng: torch.Generator) -> RenderOutput:
        """See `Representation`; nothing is random."""
        size, count = self.options.size, len(scenes.prompts)
        fragments = rasterize(self._vertices, self._faces, scenes.cameras, size, size)
        covered = fragments.mask  # [B * V, H, W]
        uv = interpolate(self._uv, self._faces, fragments.triangle, fragments.bary)[covered]  # [P, 2]
        background = scenes.background.repeat_interleave(scenes.views, dim=0)[:, None, None]
        rgb = background.expand(*covered.shape, 3).index_put((covered,), self._colors(uv))
        opacity = covered.to(rgb.dtype)
        rgb, opacity = (x.reshape(count, scenes.views, *x.shape[1:]) for x in (rgb, opacity))
        return RenderOutput({"mesh": Renderings(rgb, opacity)}, rgb.new_zeros(()))

    def _colors(self, uv: Tensor) -> Tensor:
        """Return the colours at texture coordinates [P, 2], which repeat outside of [0, 1]; [P, 3]."""
        uv = torch.where((uv < 0) | (uv > 1), uv - uv.floor(), uv)
        logits = sample(self._start, uv)
        for level in self.pyramid:
            logits = logits + sample(level, uv)
        return torch.sigmoid(logits)

    @torch.no_grad()
    def texture(self) -> np.ndarray:
        """Return the texture, sRGB uint8 [H, W, 3]."""
        height, width = self._start.shape[:2]
        change = torch.zeros_like(self._start)
        for level in self.pyramid:
            image = level.permute(2, 0, 1)[None]
            image = F.interpolate(image, (height, width), mode="bilinear", align_corners=False)
            change += image[0].permute(1, 2, 0)
        # Texels that did not change keep their exact values, also those that were clamped.
        texture = self._given + torch.sigmoid(self._start + change) - torch.sigmoid(self._start)
        return (texture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def after_step(
        self, optimizer: torch.optim.Optimizer, iteration: int, progress: float, rng: torch.Generator
    ) -> None:
        """See `Representation`; a texture has no constraints."""

    def export(self, request: Request | None = None) -> Mesh:
        """Return the given mesh with the new texture; the options of the request are not used."""
        return self.mesh.replace(texture=self.texture(), colors=None)

    def fingerprint(self) -> dict[str, Any]:
        """See `Representation`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """See `Representation`."""
        return {"pyramid": [level.detach() for level in self.pyramid]}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Representation`."""
        for level, saved in zip(self.pyramid, state["pyramid"], strict=True):
            level.copy_(saved)


def _initial(mesh: Mesh, size: int) -> Tensor:
    """Return the texture that a mesh starts with, in [0, 1] [H, W, 3]."""
    if mesh.texture is not None:
        texture = torch.from_numpy(mesh.texture.copy()).float() / 255
        if max(texture.shape[:2]) > _LARGEST:
            raise UserError(
                f"The mesh's texture has {texture.shape[1]} x {texture.shape[0]} texels; reduce it to at most"
                f" {_LARGEST} a side."
            )
        return texture
    if mesh.colors is None:
        return torch.full((size, size, 3), _GREY)
    return torch.from_numpy(bake_colors(mesh, size)).float() / 255
