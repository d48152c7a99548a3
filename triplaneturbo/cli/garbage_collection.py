"""Pause of cyclic garbage collection during imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause garbage collection, and afterwards exempt all objects that exist by then from it.

    torch, diffusers and transformers consist of some 860,000 objects that live as long as the process. The
    collector would traverse them up to ten times while they are imported, and again when the process ends.
    """
    if not gc.isenabled():  # inside another pause, or turned off by the user
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
