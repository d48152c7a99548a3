"""Fake CUDA tensors: run code on "cuda:0" tensors that have no data, with torch on any machine.

Tensors on the CPU are ordinary ones, with data. Tensors on "cuda:0" are torch's FakeTensors, which have a
shape, a dtype and a device only, so that models of any size take no memory and no arithmetic. `FakeCuda` is
torch's FakeTensorMode, which refuses to mix devices, made stricter and complete where it differs from a GPU:

- Mixed precisions of products, convolutions and norms, CUDA indices of CPU tensors, and CPU generators for
  CUDA draws are refused, as by CUDA.
- Backward passes work. Autograd would ask CUDA for streams, so torch's C++ code sees these tensors as "meta".
  Autocast therefore ignores them.
- Results whose size or value depends on data are plausible: `ROWS` rows of `nonzero`, some number for `item`.
  What is copied to the CPU is what was copied from there, or zeros.
- What makes the CPU wait for the GPU is counted in `synchronizations`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

CPU, META, CUDA = torch.device("cpu"), torch.device("meta"), torch.device("cuda:0")
ROWS = 96  # rows of a result whose size depends on data
_TURNS = 3  # a loop with the same `any` as its condition ends after this many turns
_PACKAGE = str(Path(__file__).resolve().parents[2] / "triplaneturbo") + "/"

aten = torch.ops.aten
_SAME_DTYPE = {
    aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution, aten.convolution_backward,
    aten.native_group_norm, aten.native_layer_norm, aten.grid_sampler_2d, aten.grid_sampler_3d,
    aten._embedding_bag, aten._embedding_bag_forward_only, aten.index_put, aten.index_put_,
    aten.masked_scatter, aten.index_add, aten.index_copy, aten.lerp, aten.mv, aten.dot,
}  # fmt: skip
_RESHAPE = (
    aten.resize_,
    aten.set_,
    aten.t_,
    aten.transpose_,
    aten.squeeze_,
    aten.unsqueeze_,
    aten.as_strided_,
)
_COPIES = (aten.copy_, aten.copy)
_FINITE = (aten.isfinite, aten.eq, aten.ne, aten.mul)  # torch.isfinite is composed of the others


class Synchronization(NamedTuple):
    """A wait of the CPU for the GPU: the operation, and the function of the package that calls it."""

    kind: str
    place: str


class FakeCuda(FakeTensorMode):
    """The mode; use `fake_cuda` to enter it.

    Attributes:
        synchronizations: number of waits for the GPU by operation and place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.synchronizations: Counter[Synchronization] = Counter()
        self._nested = False
        self._results: dict[Any, tuple[type, list[tuple[Any, ...]]]] = {}  # type, and shapes, by operation
        self._asked: tuple[Any, int] = (None, 0)  # the function that asks `any`, and how often it has

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = dict(kwargs or {})
        if self.in_kernel_invocation:
            return super().dispatch(func, types, args, kwargs)
        if kwargs.get("device") == META:
            kwargs["device"] = CUDA  # from C++ code, which sees the device of fake tensors as "meta"
        if self._nested:  # part of a decomposition
            return super().dispatch(func, types, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        to_cuda = kwargs.get("device") is not None and kwargs["device"].type == "cuda"
        if not (to_cuda or any(isinstance(tensor, FakeTensor) for tensor in tensors)):
            return func(*args, **kwargs)
        self._nested = True
        try:
            return self._on_cuda(func, types, args, kwargs, tensors)
        finally:
            self._nested = False

    def _on_cuda(self, func: Any, types: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        name = func.overloadpacket
        if name in (aten.index, aten.index_put, aten.index_put_):
            args = (args[0], self._indices(*args), *args[2:])
        if name in _SAME_DTYPE:
            dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
            if len(dtypes) > 1:
                raise RuntimeError(f"{func} of different dtypes: {sorted(map(str, dtypes))}")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if name is aten._local_scalar_dense:
            self.record("item")
            return self._number(args[0])
        if name is aten.equal:
            self.record("equal")
            return True
        if name in _DATA_DEPENDENT:
            self.record(str(name).removeprefix("aten."))
            return _DATA_DEPENDENT[name](*args, **kwargs)
        if name is aten._to_copy and kwargs.get("device") == CPU:
            self.record("download")
            dtype = kwargs.get("dtype") or args[0].dtype
            uploaded = getattr(args[0], "uploaded", None)
            return (
                torch.zeros(args[0].shape, dtype=dtype) if uploaded is None else uploaded.to(dtype, copy=True)
            )
        if name in _COPIES and args[0].device != args[1].device:
            self.record("upload" if args[1].device.type == "cpu" else "download")
            return args[0]
        if name is aten._to_copy and args[0].device.type == "cpu":
            self.record("upload")
            result = super().dispatch(func, types, (self._fake(args[0]),), kwargs)
            result.uploaded = args[0]
            return result
        result = self._run(func, types, args, kwargs)
        if name in (aten.any, aten.all):
            result.reduced = name, getattr(args[0], "finite", False)
        elif name in _FINITE and result.dtype == torch.bool:
            result.finite = True
        return result

    def _run(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation; again with the same shapes, its result is known, which is faster."""
        changes = func._schema.is_mutable
        key = _describe((func, args, tuple(kwargs.items())))
        if key in self._results:
            if changes:
                return args[0]
            kind, outputs = self._results[key]
            made = [
                FakeTensor(self, torch.empty_strided(shape, stride, dtype=dtype, device=META), CUDA)
                for shape, stride, dtype in outputs
            ]
            return made[0] if kind is Tensor else kind(made)
        args, kwargs = tree_map_only(Tensor, self._fake, (args, kwargs))
        result = super().dispatch(func, types, args, kwargs)
        kind, outputs = (Tensor, [result]) if isinstance(result, Tensor) else (type(result), result)
        if changes:
            if result is args[0] and func.overloadpacket not in _RESHAPE:
                self._results[key] = Tensor, []
        elif kind in (Tensor, list, tuple) and all(_is_on_cuda(value) for value in outputs):
            shapes = [(tuple(value.shape), value.stride(), value.dtype) for value in outputs]
            self._results[key] = kind, shapes
        return result

    def _fake(self, tensor: Tensor) -> Tensor:
        """Return a fake tensor on the CPU for an ordinary one, so that mixed devices are refused."""
        if isinstance(tensor, FakeTensor):
            return tensor
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
        return FakeTensor(self, empty, tensor.device)

    def _number(self, value: Tensor) -> bool | int | float:
        """Return a value for `value.item()` with which code goes the way of ordinary data."""
        if value.dtype != torch.bool:
            return 0.5 if value.is_floating_point() else 1
        name, finite = getattr(value, "reduced", (None, False))
        if name is aten.all:
            return finite
        if name is not aten.any:
            return True
        frame, times = _frame(), 1
        if frame is self._asked[0]:
            times += self._asked[1]
        self._asked = frame, times
        return times <= _TURNS

    def _indices(self, target: Tensor, indices: list[Tensor | None], *values: Any) -> list[Tensor | None]:
        """Return the indices of `target[indices]`, with `ROWS` rows for each mask."""
        found: list[Tensor | None] = []
        for index in indices:
            if index is None:
                found.append(None)
                continue
            if target.device.type == "cpu":
                raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
            if index.device.type == "cpu":
                self.record("upload")
            if index.dtype == torch.bool:
                if not (values and values[0].numel() == 1):  # else the same as masked_fill
                    self.record("mask")
                rows = [torch.empty(ROWS, dtype=torch.int64, device=META) for _ in range(index.ndim)]
                found += [FakeTensor(self, row, CUDA) for row in rows]
            else:
                found.append(self._cuda(index))
        return found

    def _cuda(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        return FakeTensor(self, torch.empty_like(tensor, device=META), CUDA)

    def record(self, kind: str) -> None:
        """Count a wait for the GPU."""
        self.synchronizations[Synchronization(kind, _place())] += 1


def _is_on_cuda(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.device == CUDA


def _describe(value: Any) -> Any:
    """Return what the shape of a result depends on, as a dictionary key."""
    if isinstance(value, FakeTensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, Tensor):
        return "cpu", tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_describe, value))
    return type(value), value


def _rows(like: Tensor, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    assert isinstance(like, FakeTensor)
    return FakeTensor(like.fake_mode, torch.empty(shape, dtype=dtype, device=META), CUDA)


def _unique(x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _rows(x, ROWS, dtype=x.dtype), _rows(x, *x.shape), _rows(x, ROWS)


# Operations whose result has a size that depends on data.
_DATA_DEPENDENT: dict[Any, Callable[..., Any]] = {
    aten.nonzero: lambda x: _rows(x, ROWS, x.ndim),
    aten.masked_select: lambda x, mask: _rows(x, ROWS, dtype=x.dtype),
    aten._unique2: _unique,
    aten.unique_consecutive: _unique,
    aten.repeat_interleave: lambda repeats, output_size=None: _rows(repeats, output_size or ROWS),
}


def _frame() -> Any:
    """Return the innermost frame in the package; None outside of it."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def _place() -> str:
    frame = _frame()
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename.removeprefix(_PACKAGE)}:{frame.f_code.co_name}"


def _swap(one: Tensor, other: Tensor) -> None:
    """Swap the contents of two tensors; `torch.utils.swap_tensors` refuses tensors with weak references."""
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__
    torch._C._swap_tensor_impl(one, other)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Context in which "cuda:0" is a device, whose tensors are fake."""
    mode = FakeCuda()
    make, data = Tensor._make_subclass, Tensor.data

    def make_subclass(cls: type, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if cls is FakeTensor and kwargs["device_for_backend_keys"].type == "cuda":
            kwargs["dispatch_device"] = False  # C++ code sees the device of `tensor`, "meta"
        return make(cls, tensor, *args, **kwargs)

    def set_data(tensor: Tensor, value: Tensor) -> None:
        if not (isinstance(tensor, FakeTensor) or isinstance(value, FakeTensor)):
            data.__set__(tensor, value)
            return
        other = torch.nn.Parameter(value.detach(), tensor.requires_grad)
        _swap(tensor, other)

    def numpy(tensor: Tensor, **_: Any) -> np.ndarray:
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")

    def tolist(tensor: Tensor) -> Any:
        mode.record("tolist")
        return torch.ones(tensor.shape, dtype=tensor.dtype).tolist()

    with (
        # FakeTensorMode would register a CUDA device, which autograd would ask for its streams.
        patch.object(torch._C, "_ensureCUDADeviceGuardSet", lambda: None),
        patch.object(Tensor, "_make_subclass", staticmethod(make_subclass)),
        # `Module.to` would make new parameters for fake tensors; on a GPU, they stay the same objects.
        patch.object(torch.__future__, "get_swap_module_params_on_conversion", lambda: True),
        patch.object(torch.utils, "swap_tensors", _swap),
        patch.object(Tensor, "data", property(data.__get__, set_data), create=True),
        patch.object(Tensor, "pin_memory", lambda tensor: tensor),
        patch.object(FakeTensor, "tolist", tolist),
        mode,
    ):
        yield mode
