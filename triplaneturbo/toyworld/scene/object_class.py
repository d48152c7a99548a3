"""What a class of the world is: a name, a builder of instances, and its natural colours."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from triplaneturbo.toyworld.scene.solid import Solid

INSTANCES = 6  # of every class


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects.

    Attributes:
        name: its noun, as captions have it.
        build: makes one instance from a random generator; front toward +x, z up, any scale. Parts in the
            caption's colour wear MAIN, those in its second colour ACCENT, all others a colour of their own.
        color: the natural main colour: what a caption without a colour means.
        accent: the noun of the part in the second colour ("roof"), or None where there is none.
        accent_color: the natural second colour; of no consequence where there is none.
    """

    name: str
    build: Callable[[np.random.Generator], Solid]
    color: str
    accent: str | None = None
    accent_color: str = "white"

    def instance(self, index: int) -> Solid:
        """Instance `index` of the class, the same at every call; not yet placed."""
        return self.build(np.random.default_rng([zlib.crc32(self.name.encode()), index]))
