"""`Vocabulary` of the toy world."""

from __future__ import annotations

from triplaneturbo.domains.vocabulary import Vocabulary
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.captions import vocabulary
from triplaneturbo.toyworld.captions.looks import looks

VOCABULARY = Vocabulary(
    words=vocabulary(),
    headings={
        "things": "Things",
        "colours": "Colours",
        "modifiers": "Sizes and patterns",
        "parts": "Parts that can have their own colour",
        "riders": "Things that can stand on another thing",
        "supports": "Things that another thing can stand on",
    },
    counted=("things", "colours", "modifiers", "parts"),
    # One example per kind of caption; all of them are in the training set.
    examples=(
        "a red mushroom",
        "a tall green cactus",
        "a striped orange fish",
        "a white house with a blue roof",
        "a yellow duck on a brown box",
    ),
    read=parse,
    looks=looks,
)
