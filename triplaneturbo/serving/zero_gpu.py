"""Support for ZeroGPU on Hugging Face Spaces, where a GPU is allocated for the duration of a call.

If the package `spaces` is installed, functions that compute are wrapped in its decorator, which runs them in
a process forked for the call. So the model is loaded in the thread that imported `spaces`, arguments and
events must be picklable and on the CPU, and errors are passed as values. `spaces` must be imported before
torch initialises CUDA: `app.py` calls `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from triplaneturbo.mesh.uv.registry import UNWRAPPERS

if TYPE_CHECKING:
    from triplaneturbo.request import Request

# Seconds of GPU time. A call that requests more than is left of the visitor's quota is refused, so request
# little: a mesh takes one or two seconds, plus the fork and the copy of the weights to the GPU.
CALL, MESH, MOST = 6, 4, 120

Stream = Callable[..., Generator[Any, None, None]]


@dataclass(frozen=True)
class _Failed:
    """An error raised in the forked process; `spaces` would replace its type."""

    error: Exception


@cache
def _spaces() -> ModuleType | None:
    try:
        import spaces
    except ImportError:
        return None
    return spaces


def prepare() -> None:
    """Import `spaces`, if it is installed, before torch."""
    _spaces()


def is_zero_gpu() -> bool:
    """Whether the program runs on ZeroGPU."""
    return _spaces() is not None


def seconds_for(requests: Sequence[Request], *_: object) -> int:
    """Return the GPU seconds to request for these meshes; called with the arguments of the stream."""
    meshes = sum(
        MESH
        + _unwrap_seconds(request.unwrap)  # runs on the CPU while the GPU is allocated
        + (request.texture_size // 2048) ** 2
        for request in requests
    )
    return min(CALL + meshes, MOST)


def _unwrap_seconds(unwrap: str) -> int:
    method = UNWRAPPERS.get(unwrap)
    return method.seconds if method else 0


def on_gpu(function: Stream) -> Stream:
    """Wrap a generator function so that each call gets a GPU; return it unchanged outside ZeroGPU.

    Args:
        function: a generator function whose first argument is the requests.
    """
    spaces = _spaces()
    if spaces is None:
        return function

    def stream(*arguments: Any) -> Generator[Any, None, None]:
        import torch

        torch.set_num_threads(1)  # OpenMP's threads do not survive the fork; waiting for them would hang
        try:
            yield from function(*arguments)
        except Exception as error:
            yield _Failed(error)

    gpu_stream = spaces.GPU(duration=seconds_for)(stream)

    def called(*arguments: Any) -> Generator[Any, None, None]:
        for event in gpu_stream(*arguments):
            if isinstance(event, _Failed):
                raise event.error
            yield event

    return called
