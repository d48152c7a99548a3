"""Registry of representations. A new one is one new file in this folder and one line in `REPRESENTATIONS`.

What the command line shows is here. Members are imported when they are used, so that representations can be
listed without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triplaneturbo.errors import UserError

if TYPE_CHECKING:
    import torch

    from triplaneturbo.mesh.mesh import Mesh
    from triplaneturbo.representations.base import Representation
    from triplaneturbo.representations.triplane import TriplaneField
    from triplaneturbo.request import Request

    # (generated field, image size in pixels, generator on the CPU, request) -> the asset
    FromField = Callable[[TriplaneField, int, torch.Generator, Request], Representation]
    # (given mesh, image size in pixels, generator on the CPU, request, blank field) -> the asset
    FromMesh = Callable[[Mesh, int, torch.Generator, Request, TriplaneField], Representation]


@dataclass(frozen=True)
class RepresentationSpec:
    """A representation by name.

    Attributes:
        name: name in options and messages.
        label: what it is, in help texts.
        source: function that converts a generated field to it, as "module:attribute" or
            "module:class.method".
        mesh_source: the same for a given mesh; "" if it cannot start from one.
        has_shape: whether its shape is optimized; if not, teachers that read normals or depths are useless.
        step_bytes: peak memory of one step with four views, in bytes per pixel of one view, including the
            asset and its optimizer but not the teachers; None: it is counted from the model's planes.
        texel_bytes: further memory, in bytes per texel of the asset's texture.
    """

    name: str
    label: str
    source: str
    mesh_source: str = ""
    has_shape: bool = True
    step_bytes: int | None = None
    texel_bytes: int = 0

    def from_field(
        self, field: TriplaneField, size: int, rng: torch.Generator, request: Request
    ) -> Representation:
        """Convert a generated field to this representation.

        Args:
            field: the field; unchanged.
            size: side of the images that the asset will be rendered to, in pixels.
            rng: on the CPU, draws everything that is random.
            request: options of the mesh, for representations that start from one.

        Raises:
            EmptySurfaceError: the representation needs a surface, and the field has none.
        """
        convert: FromField = _find(self.source)
        return convert(field, size, rng, request)

    def from_mesh(
        self, mesh: Mesh, size: int, rng: torch.Generator, request: Request, blank: TriplaneField
    ) -> Representation:
        """Convert a given mesh to this representation; see `from_field`.

        Args:
            blank: a field of the model without content; it has the size of the planes, the MLPs and the
                device.

        Raises:
            UserError: the representation cannot start from a mesh, or the mesh is unusable.
        """
        if not self.mesh_source:
            able = [spec.name for spec in REPRESENTATIONS.values() if spec.mesh_source]
            raise UserError(
                f"A given mesh cannot be refined as {self.name}; choose one of {', '.join(able)}."
            )
        convert: FromMesh = _find(self.mesh_source)
        return convert(mesh, size, rng, request, blank)


def _find(source: str) -> Any:
    """Import and return "module:attribute" or "module:class.method"."""
    module, _, path = source.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


_HERE = "triplaneturbo.representations"

REPRESENTATIONS: dict[str, RepresentationSpec] = {
    spec.name: spec
    for spec in (
        RepresentationSpec(
            "field",
            "triplane field",
            f"{_HERE}.triplane_asset:TriplaneAsset.from_field",
            f"{_HERE}.triplane_asset:TriplaneAsset.from_mesh",
        ),
        RepresentationSpec(
            "gaussians",
            "3D Gaussians",
            f"{_HERE}.gaussian_asset:GaussianAsset.from_field",
            f"{_HERE}.gaussian_asset:GaussianAsset.from_mesh",
            step_bytes=7000,  # measured with the `max_count` of GaussianOptions.for_size
        ),
        RepresentationSpec(
            "texture",
            "texture of a mesh whose shape stays",
            f"{_HERE}.textured_mesh:TexturedMesh.from_field",
            f"{_HERE}.textured_mesh:TexturedMesh.from_mesh",
            has_shape=False,
            step_bytes=600,
            texel_bytes=24,  # the given colours and their logits, in float32
        ),
    )
}


def find_representation(name: str) -> RepresentationSpec:
    """Return a representation by its name.

    Raises:
        UserError: the representation is unknown.
    """
    if name not in REPRESENTATIONS:
        raise UserError(f"Unknown representation {name!r}; choose one of {', '.join(REPRESENTATIONS)}.")
    return REPRESENTATIONS[name]
