"""Contact sheet: four views of each of some prompts, with the ranks that the judge gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from triplaneturbo.evaluate.protocols import ViewSettings
from triplaneturbo.evaluate.scores import ObjectScore
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet

_TILE, _LINE, _GAP = 144, 16, 10  # pixels
_COLUMNS = 3  # prompts side by side
_INK, _HIT = (40, 40, 40), (0, 120, 40)


@dataclass(frozen=True)
class SheetEntry:
    """One prompt of a sheet.

    Attributes:
        caption: the prompt, and the seed if there are several.
        views: uint8 [V, H, W, 3].
        score: ranks of its views.
        empty: whether the result is empty.
    """

    caption: str
    views: np.ndarray
    score: ObjectScore
    empty: bool = False


def chosen_views(settings: ViewSettings) -> list[int]:
    """Return the indices of the views at azimuths 0, 90, 180 and 270 of the lowest elevation."""
    lowest = min(settings.elevations)
    return [
        number
        for number, (azimuth, elevation) in enumerate(settings.angles)
        if azimuth % 90 == 0 and elevation == lowest
    ]


def contact_sheet(entries: Sequence[SheetEntry], settings: ViewSettings, title: str) -> bytes:
    """Return a sheet as PNG bytes; a rank of 1 is a hit.

    Args:
        entries: the prompts, at least one.
        settings: the views that each entry has.
        title: line above the sheet.
    """
    cells = [_cell(entry, chosen_views(settings)) for entry in entries]
    body = sheet(cells, columns=min(_COLUMNS, len(cells)), gap=_GAP)
    whole = Image.new("RGB", (body.shape[1] + 2 * _GAP, body.shape[0] + 2 * _GAP + _LINE), "white")
    whole.paste(Image.fromarray(body), (_GAP, _GAP + _LINE))
    _text(ImageDraw.Draw(whole), (_GAP, 4), title, whole.width - 2 * _GAP, _INK)
    return encode_image(np.asarray(whole), "png")


def _cell(entry: SheetEntry, views: Sequence[int]) -> np.ndarray:
    """Draw one prompt: its views with their ranks, and the caption with the object's rank."""
    image = Image.new("RGB", (len(views) * _TILE, _TILE + 2 * _LINE), "white")
    draw = ImageDraw.Draw(image)
    for column, view in enumerate(views):
        tile = Image.fromarray(entry.views[view]).resize((_TILE, _TILE), Image.Resampling.LANCZOS)
        image.paste(tile, (column * _TILE, 0))
        place = entry.score.view_ranks[view] + 1
        color = _HIT if place == 1 else _INK
        _text(draw, (column * _TILE + 2, _TILE), f"rank {place:,}", _TILE - 4, color)
    place = entry.score.object_rank + 1
    caption = f"{entry.caption}: rank {place:,}{', empty' if entry.empty else ''}"
    _text(draw, (2, _TILE + _LINE), caption, image.width - 4, _HIT if place == 1 else _INK)
    return np.asarray(image)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, color: tuple[int, int, int]
) -> None:
    """Draw a line of text, in a smaller font if it is too long, and cut off if it still is."""
    size = 12.0
    font = ImageFont.load_default(size)
    while size > 7 and draw.textlength(text, font=font) > width:
        size -= 0.5
        font = ImageFont.load_default(size)
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2].rstrip() + "…"
    draw.text(at, text, fill=color, font=font)
