"""The subset of the toy world that ablations train and score: some classes, plain, in all colours."""

from __future__ import annotations

from itertools import zip_longest

from triplaneturbo.toyworld.captions.combinations import held_out
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import Spec

CLASSES = (
    "mushroom", "chair", "duck", "car", "rocket", "fish", "teapot", "tree", "table", "cat", "guitar", "house",
)  # fmt: skip
_COLORS = 2  # seen colours per class that are scored, in addition to the held-out ones


def ablation_specs(classes: int = len(CLASSES)) -> tuple[list[Spec], list[Spec]]:
    """Return the specs to train on and the specs to score.

    The first are the classes in all colours that are not held out, the second two seen and all held-out
    colours of each class. The classes take turns in the second list, so that its beginning is balanced, too.

    Args:
        classes: number of classes, 1 to 12.
    """
    trained, scored = [], []
    for thing in CLASSES[:classes]:
        plain = [Spec.of(thing, color) for color in NAMES]
        seen = [spec for spec in plain if spec not in held_out()]
        trained += seen
        scored.append(_alternating(seen[:_COLORS], [spec for spec in plain if spec in held_out()]))
    turns = zip_longest(*scored)
    return trained, [spec for turn in turns for spec in turn if spec is not None]


def _alternating(one: list[Spec], other: list[Spec]) -> list[Spec]:
    return [spec for pair in zip_longest(one, other) for spec in pair if spec is not None]
