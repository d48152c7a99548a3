"""ZeroGPU of Hugging Face's Spaces: a GPU that is lent for the length of a call.

Where the package `spaces` is importable (there it is installed, elsewhere it has no effect), what computes is
wrapped in its decorator, which runs it in a process forked for the call. So the model is loaded in the thread
that imported `spaces`, arguments and events have to be picklable and off the GPU, and errors cross over as
values. It has to be imported before torch first asks for CUDA: `app.py` calls `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

SECONDS = 60  # at most, for one mesh

Stream = Callable[..., Generator[Any, None, None]]


@dataclass(frozen=True)
class _Failed:
    """What was raised; of itself it would arrive as another error."""

    error: Exception


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


def is_lent() -> bool:
    """Whether GPUs are lent for the length of a call here."""
    return _spaces() is not None


def on_gpu(function: Stream) -> Stream:
    """The generator function with a GPU lent to each of its calls; the function itself elsewhere."""
    spaces = _spaces()
    if spaces is None:
        return function

    def stream(*arguments: Any) -> Generator[Any, None, None]:
        import torch

        torch.set_num_threads(1)  # OpenMP's threads do not survive the fork, and would be waited for
        try:
            yield from function(*arguments)
        except Exception as error:
            yield _Failed(error)

    lent = spaces.GPU(duration=SECONDS)(stream)

    def called(*arguments: Any) -> Generator[Any, None, None]:
        for event in lent(*arguments):
            if isinstance(event, _Failed):
                raise event.error
            yield event

    return called
