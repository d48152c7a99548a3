"""The twelve colours that the world's captions name, and how a surface says which one it wears."""

from __future__ import annotations

import numpy as np

COLORS: dict[str, tuple[int, int, int]] = {  # sRGB, 0 to 255
    "red": (214, 30, 34),
    "orange": (245, 130, 24),
    "yellow": (250, 214, 44),
    "green": (42, 150, 58),
    "cyan": (64, 206, 214),
    "blue": (30, 72, 206),
    "purple": (122, 44, 168),
    "pink": (248, 138, 186),
    "brown": (118, 68, 34),
    "black": (30, 30, 34),
    "grey": (132, 134, 140),
    "white": (244, 244, 240),
}
NAMES = tuple(COLORS)

# A primitive's paint is a colour's index, or one of these two: the caption's colour and its second colour.
MAIN, ACCENT = len(NAMES), len(NAMES) + 1
PAINTS = len(NAMES) + 2


def paint(name: str) -> int:
    """A colour's index among the paints."""
    return NAMES.index(name)


def table(main: str, accent: str) -> np.ndarray:
    """The sRGB colour of every paint, [14, 3] float32 in [0, 1], for a caption's two colours."""
    rows = [COLORS[name] for name in (*NAMES, main, accent)]
    return np.asarray(rows, dtype=np.float32) / 255
