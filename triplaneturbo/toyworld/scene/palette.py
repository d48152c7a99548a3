"""Colour palette of the toy world: twelve named colours, and the paint indices of surfaces."""

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

# A primitive's paint is the index of a colour, or one of these two: the caption's main and second colour.
MAIN, ACCENT = len(NAMES), len(NAMES) + 1


def paint(name: str) -> int:
    """Return the paint index of a named colour."""
    return NAMES.index(name)


def table(main: str, accent: str) -> np.ndarray:
    """Return the sRGB colour of every paint for a caption's two colours: [14, 3] float32 in [0, 1]."""
    rows = [COLORS[name] for name in (*NAMES, main, accent)]
    return np.asarray(rows, dtype=np.float32) / 255
