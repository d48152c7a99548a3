"""All that the world can be asked for: what training sees of it, what it never sees, how it is drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from triplaneturbo.toyworld.captions.words import MODIFIERS
from triplaneturbo.toyworld.scene.classes import THINGS
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec
from triplaneturbo.utils.atomic_files import write_whole

HELD_OUT = Path(__file__).with_name("held_out.txt")
# How much of what is drawn is of which kind: from nothing, and where a finished model learns on. Patterns and
# sizes are learned last.
SHARES = {"plain": 0.35, "modifier": 0.3, "two colours": 0.2, "pair": 0.15}
LATER_SHARES = {"plain": 0.2, "modifier": 0.5, "two colours": 0.15, "pair": 0.15}


@cache
def all_specs() -> tuple[Spec, ...]:
    """Every combination, each once, in a fixed order.

    Every class in every colour, alone and with every modifier; every class with a part in every two different
    colours; every rider in every colour on every support, and in its own colour on supports of every colour.
    """
    specs = [
        Spec.of(thing, color, modifier=modifier)
        for thing in THINGS
        for color in NAMES
        for modifier in ("", *MODIFIERS)
    ]
    specs += [
        Spec.of(thing.name, color, accent)
        for thing in THINGS.values()
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
    """The tenth that no training ever sees, as `held_out.txt` lists it."""
    by_caption = {spec.caption: spec for spec in all_specs()}
    return frozenset(by_caption[line] for line in HELD_OUT.read_text(encoding="utf-8").splitlines())


@cache
def seen() -> tuple[Spec, ...]:
    """All but what is held out, in the order of `all_specs`."""
    return tuple(spec for spec in all_specs() if spec not in held_out())


def write_held_out(path: Path = HELD_OUT) -> None:
    """Choose a tenth of all combinations by a hash of their captions, and list it, sorted, one a line.

    What a class looks like when nothing is said of it is never held out.

    Raises:
        UserError: the file cannot be written.
    """
    natural = {Spec.of(thing) for thing in THINGS}
    chosen = [
        spec.caption
        for spec in all_specs()
        if spec not in natural and zlib.crc32(spec.caption.encode()) % 10 == 0
    ]
    write_whole(path, "".join(f"{caption}\n" for caption in sorted(chosen)).encode())


class Balance:
    """Draws specs: kinds as often as `shares` says, and within a kind every class equally often."""

    def __init__(self, specs: Iterable[Spec], shares: Mapping[str, float] = SHARES) -> None:
        """`specs`: what may be drawn. Kinds that it lacks leave their share to the others."""
        self._groups: dict[str, dict[str, list[Spec]]] = {}
        for spec in specs:
            self._groups.setdefault(spec.kind, {}).setdefault(spec.thing, []).append(spec)
        if not self._groups:
            raise ValueError("there is nothing to draw from")
        present = np.array([shares[kind] for kind in self._groups])
        self._shares = present / present.sum()

    def draw(self, rng: np.random.Generator) -> Spec:
        """First a kind, then one of its classes, then one of that class's specs."""
        things = list(self._groups.values())[int(rng.choice(len(self._shares), p=self._shares))]
        specs = list(things.values())[int(rng.integers(len(things)))]
        return specs[int(rng.integers(len(specs)))]
