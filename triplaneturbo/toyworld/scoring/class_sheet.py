"""Contact sheet of object classes: all instances, and the first one from four sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from triplaneturbo.mesh.preview import sheet
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.toyworld.scene.object_class import INSTANCES, ObjectClass
from triplaneturbo.toyworld.scene.solid import Solid
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, colors, see, shade

_BACKGROUND = 0.85


def picture(
    solid: Solid, main: str, accent: str, modifier: str, cameras: Cameras, size: int, background: float = 1.0
) -> np.ndarray:
    """Render shaded images of a placed solid on a grey background: uint8 [V, size, size, 3].

    Args:
        main: name of the main colour.
        accent: name of the second colour.
        modifier: name of a pattern, or "".
        size: pixels per side; rendered at twice the size.
        background: grey level in [0, 1].
    """
    views = see(solid, cameras, 2 * size)
    rgb = torch.from_numpy(colors(main, accent, modifier)[views.pattern, views.paint])
    lit = shade(rgb, torch.from_numpy(views.normal).float() / 127, cameras.c2w[:, None, None, :3, 2].float())
    lit[torch.from_numpy(views.paint == NOTHING)] = background
    small = lit.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).mean((2, 4))  # [V, size, size, 3]
    return (small * 255).round().to(torch.uint8).numpy()


def class_row(object_class: ObjectClass, size: int = 96) -> list[np.ndarray]:
    """Render all instances of a class, then the first one from the front, the side, behind and above."""
    corner = orbit(35.0, 20.0, 2.5)
    pictures = []
    for index in range(INSTANCES):
        solid = object_class.instance(index).placed()
        pictures.append(
            picture(solid, object_class.color, object_class.accent_color, "", corner, size, _BACKGROUND)[0]
        )
    around = orbit([0.0, 90.0, 180.0, 0.0], [10.0, 10.0, 10.0, 89.0], 2.5)
    solid = object_class.instance(0).placed()
    pictures += list(
        picture(solid, object_class.color, object_class.accent_color, "", around, size, _BACKGROUND)
    )
    return pictures


def make_class_sheet(object_classes: Sequence[ObjectClass], size: int = 96) -> np.ndarray:
    """Return a sheet with one row per class: uint8 [H, W, 3]."""
    return sheet(
        [one for object_class in object_classes for one in class_row(object_class, size)],
        columns=INSTANCES + 4,
        gap=2,
    )
