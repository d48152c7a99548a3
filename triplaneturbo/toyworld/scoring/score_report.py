"""Reports of scores: a text table, and a contact sheet of results beside the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.render.cameras import orbit
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated, photograph
from triplaneturbo.toyworld.scoring.score import GROUPS, group_of

_COLUMNS = {
    "count": "results",
    "volume_iou": "volume IoU",
    "silhouette_iou": "silhouette IoU",
    "color_error": "colour error",
    "normal_error": "normals, °",
    "detail_recall": "details",
    "r_at_1": "R@1",
    "r_at_5": "R@5",
    "floaters": "floaters",
    "floaters_left": "left",
    "empty": "empty",
}
_PROMPTS_PER_GROUP = 32
_TILE, _CAPTION, _GAP = 112, 16, 6  # pixels
_WHITE = (1.0, 1.0, 1.0)


def table(scores: dict[str, Any]) -> str:
    """Format the result of `score` as text: groups beside the baseline sphere, kinds, classes, diversity."""
    rows = [("", *_COLUMNS.values())]
    for group, figures in scores["model"].items():
        rows += [_row(group, figures), _row(f"{group}, a sphere", scores["sphere"][group])]
    for part in ("kinds", "classes"):
        rows += [("",) * len(rows[0])]
        rows += [_row(name, figures) for name, figures in sorted(scores[part].items())]
    lines = [*align_columns(rows), ""]
    for group, apart in scores["diversity"].items():
        lines.append(
            f"{group}: volume distance (1 - IoU) of two results of a prompt {_number(apart['model'])}, "
            f"of two of its instances {_number(apart['world'])}; results of {len(scores['seeds'])} seeds "
            f"are nearest to {_number(apart['instances_hit'])} different instances."
        )
    return "".join(f"{line}\n" for line in lines)


def align_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Format rows as lines, with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    return (name, *(_number(figures[key]) for key in _COLUMNS))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


class ScoreSheet:
    """Contact sheet of results beside their nearest instance, for the first 32 prompts of each group.

    Pass it to `score` as `on_result`.
    """

    def __init__(self) -> None:
        self._tiles: dict[Spec, np.ndarray] = {}

    def __call__(self, spec: Spec, seed: int, generated: Generated | None, nearest: int) -> None:
        """Add the first result of a prompt; see `score.OnResult`."""
        same_group = [other for other in self._tiles if group_of(other) == group_of(spec)]
        if spec not in self._tiles and len(same_group) < _PROMPTS_PER_GROUP:
            pair = [portrait(generated), portrait(ground_truth.generated(spec, nearest))]
            self._tiles[spec] = with_caption(np.concatenate(pair, 1), spec.caption)

    def png(self) -> bytes:
        """Return the sheet with eight pairs (result, ground truth) per row; seen prompts first.

        Raises:
            ValueError: there are no results.
        """
        ordered = sorted(self._tiles.items(), key=lambda item: GROUPS.index(group_of(item[0])))
        return encode_image(sheet([tile for _, tile in ordered], columns=8, gap=_GAP), "png")


def portrait(generated: Generated | None, size: int = _TILE) -> np.ndarray:
    """Render a result from a corner, uint8 [size, size, 3]; white if there is none."""
    if generated is None:
        return np.full((size, size, 3), 255, dtype=np.uint8)
    picture = photograph(generated, orbit(35.0, 22.0, 2.45), size, _WHITE)[0].permute(1, 2, 0)
    return (picture * 255).round().to(torch.uint8).numpy()


def with_caption(picture: np.ndarray, caption: str) -> np.ndarray:
    """Add a caption below a picture [H, W, 3], in the largest font that fits: [H + 16, W, 3]."""
    height, width, _ = picture.shape
    image = Image.new("RGB", (width, height + _CAPTION), "white")
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    size = 12.0
    while size > 7 and draw.textlength(caption, font=ImageFont.load_default(size)) > width - 4:
        size -= 0.5
    draw.text((width / 2, height), caption, fill=(40, 40, 40), anchor="ma", font=ImageFont.load_default(size))
    return np.asarray(image)
