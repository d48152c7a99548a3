"""The classes of the world: what there is, how it is built, and what it is called."""

from __future__ import annotations
