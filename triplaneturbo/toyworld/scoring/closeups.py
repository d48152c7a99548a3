"""Close-ups of faces, windows and patterns: results at 512^2 pixels beside the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score import find_nearest
from triplaneturbo.toyworld.scoring.score_report import portrait, with_caption

CAPTIONS = (
    "a yellow duck",
    "an orange fish",
    "a black cat",
    "a blue penguin",
    "a grey robot",
    "a white snowman",
    "a red house",
    "a grey castle",
    "a blue car",
    "a pink cupcake",
    "a checkered red barrel",
    "a spotted red mushroom",
)


def make_closeups(
    generate: Callable[[str, int], Generated], captions: Sequence[str] = CAPTIONS, size: int = 512
) -> np.ndarray:
    """Return pairs (result of seed 0, nearest instance) with their captions, three in a row: uint8 [H, W, 3].

    Args:
        generate: maps a caption and a seed to a result; may raise EmptySurfaceError, which leaves its place
            white.
        captions: canonical captions of the toy world.
        size: side of a picture in pixels.
    """
    tiles = []
    for caption in captions:
        spec = parse(caption).spec
        assert spec is not None
        nearest = 0
        try:
            generated = generate(caption, 0)
        except EmptySurfaceError:
            picture = portrait(None, size)
        else:
            picture = portrait(generated, size)
            _, nearest, _ = find_nearest(generated, ground_truth.occupancy(spec))
        pair = [picture, portrait(ground_truth.generated(spec, nearest), size)]
        tiles.append(with_caption(np.concatenate(pair, 1), caption))
    return sheet(tiles, columns=3, gap=6)
