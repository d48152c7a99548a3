"""ZeroGPU of Hugging Face's Spaces: a GPU that is lent for the length of a call.

Where the package `spaces` is importable (there it is installed, elsewhere it has no effect), what computes is
wrapped in its decorator. It has to be imported before torch first asks for CUDA: `app.py` calls `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

SECONDS = 60  # at most, for one mesh: Spaces count what is asked for against a visitor's share

Function = TypeVar("Function", bound=Callable[..., Any])


@cache
def _spaces() -> ModuleType | None:
    try:
        import spaces
    except ImportError:
        return None
    return spaces


def prepare() -> None:
    """Import `spaces` if it can be, before torch is."""
    _spaces()


def on_gpu(function: Function) -> Function:
    """The function with a GPU lent to each of its calls; the function itself elsewhere."""
    spaces = _spaces()
    return function if spaces is None else spaces.GPU(duration=SECONDS)(function)
