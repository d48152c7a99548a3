"""All specs of the toy world, their split into training and held-out sets, and balanced sampling."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from triplaneturbo.toyworld.captions.words import MODIFIERS
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec
from triplaneturbo.utils.atomic_files import write_atomically

HELD_OUT = Path(__file__).with_name("held_out.txt")
# Probability of each kind of spec: when training from scratch, and when training a finished model further.
# Sizes and patterns are learned last, hence their larger share in the second.
SHARES = {"plain": 0.35, "modifier": 0.3, "two colours": 0.2, "pair": 0.15}
FINETUNE_SHARES = {"plain": 0.2, "modifier": 0.5, "two colours": 0.15, "pair": 0.15}


@cache
def all_specs() -> tuple[Spec, ...]:
    """Return every spec once, in a fixed order.

    Every class in every colour, plain and with every modifier; every class that has an accent part in every
    pair of different colours; every rider in every colour on every support in its natural colour, and every
    rider in its natural colour on every support in every colour.
    """
    specs = [
        Spec.of(thing, color, modifier=modifier)
        for thing in OBJECT_CLASSES
        for color in NAMES
        for modifier in ("", *MODIFIERS)
    ]
    specs += [
        Spec.of(thing.name, color, accent)
        for thing in OBJECT_CLASSES.values()
        if thing.accent
        for color in NAMES
        for accent in NAMES
        if accent not in (color, thing.accent_color)
    ]
    for thing in RIDERS:
        for support in SUPPORTS:
            specs += [Spec.of(thing, color, support=support) for color in NAMES]
            specs += [Spec.of(thing, support=support, support_color=color) for color in NAMES]
    return tuple(dict.fromkeys(specs))


@cache
def held_out() -> frozenset[Spec]:
    """Return the tenth of all specs that is never trained on, as listed in `held_out.txt`."""
    by_caption = {spec.caption: spec for spec in all_specs()}
    return frozenset(by_caption[line] for line in HELD_OUT.read_text(encoding="utf-8").splitlines())


@cache
def seen() -> tuple[Spec, ...]:
    """Return all specs that are not held out, in the order of `all_specs`."""
    return tuple(spec for spec in all_specs() if spec not in held_out())


def write_held_out(path: Path = HELD_OUT) -> None:
    """Choose a tenth of all specs by a hash of their captions and write the captions to `path`, sorted.

    Classes in their natural colours are never held out.

    Raises:
        UserError: the file cannot be written.
    """
    natural = {Spec.of(thing) for thing in OBJECT_CLASSES}
    chosen = [
        spec.caption
        for spec in all_specs()
        if spec not in natural and zlib.crc32(spec.caption.encode()) % 10 == 0
    ]
    write_atomically(path, "".join(f"{caption}\n" for caption in sorted(chosen)).encode())


class BalancedSampler:
    """Draws specs: kinds with probabilities `shares`, and the classes of a kind equally often."""

    def __init__(self, specs: Iterable[Spec], shares: Mapping[str, float] = SHARES) -> None:
        """Group the specs by kind and class; the shares of missing kinds go to the others.

        Raises:
            ValueError: `specs` is empty.
        """
        self._groups: dict[str, dict[str, list[Spec]]] = {}
        for spec in specs:
            self._groups.setdefault(spec.kind, {}).setdefault(spec.thing, []).append(spec)
        if not self._groups:
            raise ValueError("specs is empty")
        present = np.array([shares[kind] for kind in self._groups])
        self._shares = present / present.sum()

    def draw(self, rng: np.random.Generator) -> Spec:
        """Draw a kind, then one of its classes, then one of that class's specs."""
        things = list(self._groups.values())[int(rng.choice(len(self._shares), p=self._shares))]
        specs = list(things.values())[int(rng.integers(len(things)))]
        return specs[int(rng.integers(len(specs)))]
