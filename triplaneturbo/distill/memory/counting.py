"""Memory counted and not measured: which tensors are alive while something runs, on any device.

On the meta device, where tensors have shapes and no numbers, this costs neither memory nor arithmetic, and
tells what a machine would need that is not at hand. What kernels take for themselves while they run (a
convolution's workspace) is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryCounter(TorchDispatchMode):
    """While it is entered, counts the bytes of all tensors that come into being and are still there.

    Attributes:
        now: bytes alive; those of tensors from before do not count.
        peak: the most that were alive at once since it was entered, or since `reset`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes of each storage by its address; 0 for those from before

    def reset(self) -> None:
        """Let the peak begin anew."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and take note of what comes of it."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._note(leaf, from_before=True)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf, from_before=False)
        return out

    def _note(self, tensor: Tensor, from_before: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size = 0 if from_before else storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key)


@contextmanager
def fused_attention() -> Iterator[None]:
    """While it is entered, attention on the meta device takes what a GPU's fused kernel takes.

    Otherwise it would be counted with all its scores: 0.4 GB at the full size, and more than once. (A mode of
    torch's own would not reach what a backward pass computes again. Other devices are served as ever.)
    """
    plain = F.scaled_dot_product_attention

    def stand_in(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if query.is_meta:
            return _Fused.apply(query, key, value)
        return plain(query, key, value, *args, **kwargs)

    F.scaled_dot_product_attention = stand_in
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain


class _Fused(torch.autograd.Function):
    """Shapes alone: the result and, for the backward pass, one number a query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(part) for part in ctx.saved_tensors[:3])


def size_of(*modules: nn.Module, learning: bool | None = None) -> int:
    """Bytes of the parameters and buffers of some modules, each tensor once.

    Args:
        learning: only of parameters that learn (True), or of all else (False).
    """
    tensors = {id(p): p for module in modules for p in [*module.parameters(), *module.buffers()]}
    return sum(
        p.numel() * p.element_size()
        for p in tensors.values()
        if learning is None or (isinstance(p, nn.Parameter) and p.requires_grad) == learning
    )
