"""One picture of the asset from a known camera, as an additional view of a refinement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch


@dataclass(frozen=True)
class ReferenceView:
    """What the asset looks like from one camera.

    Attributes:
        camera: one camera.
        rgb: colours, sRGB in [0, 1], on black where the picture is transparent [H, H, 3].
        opacity: [H, H], in [0, 1].
        color_weight, mask_weight: weights of the two losses.
    """

    camera: Cameras
    rgb: Tensor
    opacity: Tensor
    color_weight: float = 30.0
    mask_weight: float = 10.0

    def scene(self, like: SceneBatch) -> SceneBatch:
        """Return the scene of this view alone, with the prompt and the background of the first of `like`."""
        return SceneBatch(like.prompts[:1], self.camera, 1, like.background[:1])

    def losses(
        self, renderings: Mapping[str, Renderings], background: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Compare renderings of `scene` with the picture.

        As in score distillation, where the gradient is summed over the pixels, the loss is a sum of squares.

        Args:
            renderings: by name, of one scene and one view, at H^2 pixels or with a stride.
            background: of the scene [3].

        Returns:
            The weighted sum of the losses, a scalar, and the mean absolute errors of colour and opacity by
            rendering, as "image <rendering>" and "image <rendering> mask".
        """
        total, errors = background.new_zeros(()), dict[str, float]()
        for name, rendering in renderings.items():
            rgb, opacity = rendering.rgb[0, 0], rendering.opacity[0, 0]  # [h, w, 3], [h, w]
            height, width = opacity.shape
            rows = slice(rendering.first[0], None, rendering.stride)
            columns = slice(rendering.first[1], None, rendering.stride)
            mask = self.opacity[rows, columns][:height, :width]
            wanted = self.rgb[rows, columns][:height, :width] + background * (1 - mask[..., None])
            color, outline = rgb - wanted, opacity - mask
            total = total + self.color_weight / 2 * color.square().sum()
            total = total + self.mask_weight / 2 * outline.square().sum()
            errors[f"image {name}"] = float(color.detach().abs().mean())
            errors[f"image {name} mask"] = float(outline.detach().abs().mean())
        return total, errors
