"""ZeroGPU of Hugging Face's Spaces: a GPU that is lent for the length of a call.

Where the package `spaces` is importable (there it is installed, elsewhere it has no effect), what computes is
wrapped in its decorator, which runs it in a process forked for the call. So the model is loaded in the thread
that imported `spaces`, arguments and events have to be picklable and off the GPU, and errors cross over as
values. It has to be imported before torch first asks for CUDA: `app.py` calls `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triplaneturbo.request import Request

# Seconds of a lent GPU. A call that asks for more than is left of the visitor's quota is refused, so ask for
# little: a mesh takes one or two, besides the fork and the copy of the weights to the GPU.
CALL, MESH, XATLAS, MOST = 6, 4, 20, 120

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


def seconds_for(requests: Sequence[Request], *_: object) -> int:
    """Seconds of a GPU to ask for to make these meshes; called with the arguments of the stream."""
    meshes = sum(
        MESH
        + (XATLAS if request.unwrap == "xatlas" else 0)  # it runs on the CPU while the GPU is lent
        + (request.texture_size // 2048) ** 2
        for request in requests
    )
    return min(CALL + meshes, MOST)


def on_gpu(function: Stream) -> Stream:
    """The generator function with a GPU lent to each of its calls; the function itself elsewhere.

    Args:
        function: its first argument is the requests that it makes.
    """
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

    lent = spaces.GPU(duration=seconds_for)(stream)

    def called(*arguments: Any) -> Generator[Any, None, None]:
        for event in lent(*arguments):
            if isinstance(event, _Failed):
                raise event.error
            yield event

    return called
