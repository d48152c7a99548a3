"""Teachers that live in the main memory and come to the device one after another.

A teacher is frozen, so that it has nothing to bring back: what came to the device is let go. A full U-Net in
half precision is 1.7 GB, a tenth of a second from memory that is pinned, against the seconds of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from triplaneturbo.teachers.base import Renderings, SceneBatch, Teacher
from triplaneturbo.utils.random_streams import RandomStreams


class Movable(Teacher, Protocol):
    """A teacher with networks that may be moved."""

    @property
    def networks(self) -> list[nn.Module]:
        """All that needs the device while it is asked."""
        ...


class SequentialOffload:
    """A teacher whose networks are on the device while somebody attends to it, and not else.

    Asked outside of `attending` it comes for that one call; but gradients go back through a network that is
    still there, so who wants them attends to the teacher until they are computed.

    Args:
        teacher: its networks must be frozen; they go to the main memory at once, pinned beside CUDA.
        device: where it is asked.

    Attributes:
        name, alphas, reads: see `Teacher`.
    """

    def __init__(self, teacher: Movable, device: torch.device) -> None:
        self.teacher, self.device = teacher, device
        self.name, self.alphas, self.reads = teacher.name, teacher.alphas, teacher.reads
        self._deep = 0
        tensors = {id(t): t for network in teacher.networks for t in _tensors(network)}
        self._homes: list[tuple[Tensor, Tensor]] = []
        for tensor in tensors.values():
            if tensor.requires_grad:
                raise ValueError(f"{teacher.name} learns: only what is frozen can be let go")
            home = tensor.data.cpu()
            if device.type == "cuda":
                home = home.pin_memory()
            self._homes.append((tensor, home))
        self._go()

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Have its networks on the device; may be entered more than once."""
        if self._deep == 0:
            for tensor, home in self._homes:
                tensor.data = home.to(self.device, non_blocking=True, copy=True)
        self._deep += 1
        try:
            yield
        finally:
            self._deep -= 1
            if self._deep == 0:
                self._go()

    def _go(self) -> None:
        for tensor, home in self._homes:
            tensor.data = home

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """See `Teacher`."""
        with self.attending():
            return self.teacher.encode(seen, scenes, rng)

    def condition(self, seen: Renderings, scenes: SceneBatch) -> Any:
        """See `Teacher`; its texts need no network of its own."""
        return self.teacher.condition(seen, scenes)

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Teacher`."""
        with self.attending():
            return self.teacher.predict(noisy, times, condition, guided)


def attending(teacher: Teacher) -> AbstractContextManager[None]:
    """The context in which a teacher is asked, and gradients are taken through it; any teacher has one."""
    return teacher.attending() if isinstance(teacher, SequentialOffload) else nullcontext()


def offload_sequentially(teachers: Sequence[Movable], device: torch.device) -> list[Teacher]:
    """The same teachers, each on the device only in its turn."""
    return [SequentialOffload(teacher, device) for teacher in teachers]


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
