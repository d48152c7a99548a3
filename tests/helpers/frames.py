"""Draw the world axes of each teacher over an object with a face: python -m tests.helpers.frames

One row for our own space and one for each camera-conditioned teacher; one column for each of four views,
starting at azimuth 0 (our front). Red, green and blue are the teacher's x, y and z.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.teachers.multi_view import MultiView
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scoring.class_sheet import picture

PICTURE = Path(__file__).with_name("frames.png")
SIZE = 192
_COLORS = ("tab:red", "tab:green", "tab:blue")


def views() -> Cameras:
    """Four cameras at azimuths 0, 90, 180 and 270 degrees, slightly from above."""
    return orbit([0.0, 90.0, 180.0, 270.0], 20.0, 2.6, 40.0)


def frames() -> dict[str, Tensor]:
    """Return world axes as columns [3, 3] in our coordinates, for our own space and each teacher's."""
    kinds: dict[str, tuple[type[MultiView], bool]] = {
        "MVDream": (MVDream, False),
        "RichDreamer": (RichDreamer, False),
        "MVDream, released trainer": (MVDream, True),
    }
    found = {"ours": torch.eye(3)}
    for name, (kind, released) in kinds.items():
        teacher = kind.__new__(kind)  # camera conventions do not depend on the weights
        teacher.released = released  # type: ignore[attr-defined]
        told = teacher._cameras(views()).view(-1, 4, 4)[:, :3, :3]
        turns = told @ views().c2w[:, :3, :3].mT  # from our frame to the teacher's, the same for all views
        torch.testing.assert_close(turns, turns[:1].expand_as(turns), atol=1e-5, rtol=0)
        found[name] = turns[0].mT
    return found


def draw() -> np.ndarray:
    """Render the figure as uint8 [H, W, 3]."""
    cameras = views()
    thing = OBJECT_CLASSES["robot"]
    pictures = picture(thing.instance(0).placed(), thing.color, thing.accent_color, "", cameras, SIZE)
    names = frames()
    figure = Figure(figsize=(8, 2.15 * len(names)), dpi=100)
    canvas = FigureCanvasAgg(figure)
    plots = figure.subplots(len(names), 4, squeeze=False)
    for row, (name, axes) in zip(plots, names.items(), strict=True):
        for column, plot in enumerate(row):
            plot.imshow(pictures[column])
            plot.set_axis_off()
            plot.set_title(name if column == 0 else f"azimuth {90 * column}", fontsize=8, loc="left")
            ends = torch.cat((torch.zeros(1, 3), 0.85 * axes.T))
            at = cameras[column].to_pixels(ends, SIZE, SIZE)[0]
            x, y = (at[:, :2] / at[:, 2:]).T.tolist()
            for k, letter in enumerate("xyz"):
                plot.annotate(
                    letter, (x[0], y[0]), (x[k + 1], y[k + 1]), color=_COLORS[k], fontsize=11, weight="bold",
                    arrowprops={"arrowstyle": "<-", "color": _COLORS[k], "lw": 2, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
    figure.tight_layout(pad=0.3)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


if __name__ == "__main__":
    PICTURE.write_bytes(encode_image(draw(), "png"))
