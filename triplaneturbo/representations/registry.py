"""Registry of representations. A new one is one new file in this folder and one line in `REPRESENTATIONS`.

What the command line shows is here. Members are imported when they are used, so that representations can be
listed without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triplaneturbo.errors import UserError

if TYPE_CHECKING:
    import torch

    from triplaneturbo.representations.base import Representation
    from triplaneturbo.representations.triplane import TriplaneField

    # (generated field, image size in pixels, generator on the CPU) -> the asset
    FromField = Callable[[TriplaneField, int, torch.Generator], Representation]


@dataclass(frozen=True)
class RepresentationSpec:
    """A representation by name.

    Attributes:
        name: name in options and messages.
        label: what it is, in help texts.
        source: function that converts a generated field to it, as "module:attribute" or
            "module:class.method".
    """

    name: str
    label: str
    source: str

    def from_field(self, field: TriplaneField, size: int, rng: torch.Generator) -> Representation:
        """Convert a generated field to this representation.

        Args:
            field: the field; unchanged.
            size: side of the images that the asset will be rendered to, in pixels.
            rng: on the CPU, draws everything that is random.

        Raises:
            EmptySurfaceError: the representation needs a surface, and the field has none.
        """
        module, _, path = self.source.partition(":")
        function = importlib.import_module(module)
        for attribute in path.split("."):
            function = getattr(function, attribute)
        convert: FromField = function  # type: ignore[assignment]
        return convert(field, size, rng)


_HERE = "triplaneturbo.representations"

REPRESENTATIONS: dict[str, RepresentationSpec] = {
    spec.name: spec
    for spec in (
        RepresentationSpec("field", "triplane field", f"{_HERE}.triplane_asset:TriplaneAsset.from_field"),
        RepresentationSpec("gaussians", "3D Gaussians", f"{_HERE}.gaussian_asset:GaussianAsset.from_field"),
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
