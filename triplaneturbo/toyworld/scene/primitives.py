"""Kinds of primitives of a solid and operations on them, as numbers in its table and in the kernels."""

from __future__ import annotations

ELLIPSOID, BOX, CONE, LIMB, TORUS, PRISM, PYRAMID = range(7)
UNION, CUT = range(2)
