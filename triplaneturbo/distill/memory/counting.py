"""MemoryCounter: counts the bytes of live tensors on any device.

On the meta device, where tensors have no data, this costs neither memory nor arithmetic, so that the memory
of a run can be estimated on any machine. Workspaces of kernels are not counted.
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
    """Context that counts the bytes of all tensors created in it that are still alive.

    Attributes:
        now: live bytes, without tensors created before.
        peak: maximum of `now` since entering the context or since `reset`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # bytes by storage address; 0 for storages created before

    def reset(self) -> None:
        """Reset the peak to the current value."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count its outputs."""
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
    """Context in which attention on the meta device takes as much memory as a GPU's fused kernel.

    The default implementation would count the attention scores, several times 0.4 GB at full size. A torch
    function mode would not apply to checkpointed recomputation. Other devices are unaffected.
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
    """Allocates the output and, for the backward pass, one number per query and head."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(part) for part in ctx.saved_tensors[:3])


def size_of(*modules: nn.Module, learning: bool | None = None) -> int:
    """Return the bytes of the parameters and buffers of modules, counting shared tensors once.

    Args:
        learning: True for trainable parameters only, False for everything else, None for all.
    """
    tensors = {id(p): p for module in modules for p in [*module.parameters(), *module.buffers()]}
    return sum(
        p.numel() * p.element_size()
        for p in tensors.values()
        if learning is None or (isinstance(p, nn.Parameter) and p.requires_grad) == learning
    )
