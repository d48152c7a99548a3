"""How well an asset that starts from a given mesh reproduces it."""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.refine.image_view import views
from triplaneturbo.representations.base import Representation
from triplaneturbo.representations.textured_mesh import TexturedMesh, TextureOptions

_AZIMUTHS = [45.0, 135.0, 225.0, 315.0]
_ELEVATION = 20.0


@dataclass(frozen=True)
class FitError:
    """Differences between renderings of an asset and of its mesh, over four views.

    Attributes:
        outline_iou: intersection over union of the outlines.
        color: mean absolute difference of the colours, where both are visible, in [0, 1].
    """

    outline_iou: float
    color: float

    def sentence(self, label: str) -> str:
        """Return it as a message about a representation with this label."""
        return (
            f"Fit to the mesh as {label}: the outlines overlap by {100 * self.outline_iou:.1f} %, and the"
            f" colours differ by {self.color:.3f} on average."
        )


def fit_error(asset: Representation, mesh: Mesh, size: int) -> FitError:
    """Compare an asset with the mesh that it was made from.

    Args:
        asset: unchanged.
        mesh: the mesh.
        size: side of the asset's images, in pixels.
    """
    given = TexturedMesh(mesh, TextureOptions(size), asset.device)
    common = union = difference = 0.0
    for (*_, one), (*_, other) in zip(
        views(asset, _AZIMUTHS, _ELEVATION), views(given, _AZIMUTHS, _ELEVATION), strict=True
    ):
        solid, wanted = (rendering.opacity[0, 0] > 0.5 for rendering in (one, other))
        both = solid & wanted
        common, union = common + float(both.sum()), union + float((solid | wanted).sum())
        difference += float((one.rgb - other.rgb)[0, 0][both].abs().mean(-1).sum())
    return FitError(common / max(union, 1.0), difference / max(common, 1.0))
