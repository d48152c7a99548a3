"""`ObjectClass`: name, instance builder and natural colours of a class of the toy world."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from triplaneturbo.toyworld.scene.solid import Solid

INSTANCES = 6  # per class


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects.

    Attributes:
        name: the noun used in captions.
        build: builds one instance from a random generator: front toward +x, z up, any scale. Parts in the
            main colour have paint MAIN, those in the second colour ACCENT, all others a fixed colour.
        variants: numbers of the instances that the variants of a model stand for; they look very different.
        color: natural main colour, used for captions without a colour.
        accent: noun of the part with the second colour ("roof"), or None if there is no such part.
        accent_color: natural second colour; unused if `accent` is None.
    """

    name: str
    build: Callable[[np.random.Generator], Solid]
    variants: tuple[int, int]
    color: str
    accent: str | None = None
    accent_color: str = "white"

    def instance(self, index: int) -> Solid:
        """Build instance `index` of the class; deterministic, not yet placed."""
        return self.build(np.random.default_rng([zlib.crc32(self.name.encode()), index]))
