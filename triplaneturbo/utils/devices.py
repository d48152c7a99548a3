"""Selection of device and precision, and reports on devices and memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class DeviceChoice(NamedTuple):
    """A device and the reason why it was chosen."""

    device: torch.device
    why: str


class PrecisionChoice(NamedTuple):
    """A precision and the reason why it was chosen."""

    dtype: torch.dtype
    why: str


def choose_device(asked: str | None = None) -> DeviceChoice:
    """Choose a device.

    Args:
        asked: "cpu", "cuda", "cuda:1" or "mps"; None or "auto": the current GPU if it is usable, else the
            CPU.

    Raises:
        UserError: the device does not exist or is not usable.
    """
    if asked in (None, "auto"):
        if torch.cuda.device_count() == 0:
            return DeviceChoice(torch.device("cpu"), "no CUDA device was found")
        index = torch.cuda.current_device() if torch.cuda.is_available() else 0
        problem = _cuda_problem(index)
        if problem:
            return DeviceChoice(torch.device("cpu"), problem)
        return DeviceChoice(torch.device("cuda", index), "a CUDA device was found")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise UserError(f"There is no device {shown(asked)}; use cpu, cuda, cuda:1 or mps.") from None
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in counts or (device.index or 0) >= counts[device.type]:
        available = ", ".join(f"{kind}:{i}" if i else kind for kind, n in counts.items() for i in range(n))
        raise UserError(f"This machine has no device {shown(asked)}; available: {available}.")
    problem = _cuda_problem(device.index or 0) if device.type == "cuda" else ""
    if problem:
        raise UserError(f"{problem[:1].upper()}{problem[1:]}; use --device cpu.")
    return DeviceChoice(device, "asked for")


def choose_devices(asked: str | None = None) -> list[DeviceChoice]:
    """Choose one or several devices.

    Args:
        asked: one device as in `choose_device`, a list such as "cuda:0,cuda:1", or "all" for all usable GPUs.

    Raises:
        UserError: a device does not exist or is not usable.
    """
    if asked == "all":
        count = torch.cuda.device_count()
        if count == 0:
            raise UserError("--device all uses all CUDA devices, but there is no CUDA device; omit --device.")
        usable = [index for index in range(count) if not _cuda_problem(index)]
        if not usable:
            raise UserError(f"No CUDA device is usable: {_cuda_problem(0)}; use --device cpu.")
        return [DeviceChoice(torch.device("cuda", index), "all were asked for") for index in usable]
    if asked is None or "," not in asked:
        return [choose_device(asked)]
    return [choose_device(part.strip()) for part in asked.split(",")]


def _cuda_problem(index: int) -> str:
    """Return why a CUDA device is unusable with this build of torch, or "" if it is usable."""
    if not torch.cuda.is_available():
        return f"the GPU driver is too old for this torch, which needs CUDA {torch.version.cuda}; update it"
    major, minor = torch.cuda.get_device_capability(index)
    matches = (re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list())
    built = [(match[1], int(match[2]), int(match[3])) for match in matches if match]  # empty for ROCm
    for kind, built_major, built_minor in built:
        # Binary code (sm) runs on its own major version from its minor version on, PTX on all later versions.
        if kind == "sm" and built_major == major and built_minor <= minor:
            return ""
        if kind == "compute" and (built_major, built_minor) <= (major, minor):
            return ""
    if not built:
        return ""
    oldest = min((a, b) for _, a, b in built)
    name = torch.cuda.get_device_properties(index).name
    reason = "too old for" if (major, minor) < oldest else "not supported by"
    return (
        f"the {name} (compute capability {major}.{minor}) is {reason} this torch, built for"
        f" {oldest[0]}.{oldest[1]} and later"
    )


def choose_precision(asked: str, device: torch.device, small: bool) -> PrecisionChoice:
    """Choose the precision of the generator.

    Args:
        asked: "float32", "float16" or "bfloat16"; "auto": the fastest one that is accurate enough.
        device: device of the generator.
        small: whether the model is small; see `ModelFiles.small`.

    Raises:
        UserError: `asked` is invalid.
    """
    if asked != "auto":
        if asked not in PRECISIONS:
            names = f"{', '.join(list(PRECISIONS)[:-1])} or {list(PRECISIONS)[-1]}"
            raise UserError(f"The precision should be auto, {names}, not {shown(asked)}.")
        return PrecisionChoice(PRECISIONS[asked], "asked for")
    if small:
        return PrecisionChoice(torch.float32, "lower precision does not speed up a small model")
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return PrecisionChoice(
                torch.float16, "this GPU supports it in hardware, and it is more accurate than bfloat16"
            )
        return PrecisionChoice(torch.float32, "this GPU has no fast float16")
    unit = bfloat16_unit() if device.type == "cpu" else None
    if unit:
        return PrecisionChoice(torch.bfloat16, f"this CPU supports it in hardware ({unit})")
    return PrecisionChoice(torch.float32, f"this {device.type.upper()} has no known bfloat16 support")


@functools.cache
def bfloat16_unit() -> str | None:
    """Return the CPU's instruction set for bfloat16 products ("AMX" or "AVX-512"), or None if unknown."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return "AMX" if "amx_bf16" in flags else "AVX-512" if "avx512_bf16" in flags else None


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the device is fast in it; None for the precision of the weights."""
    return torch.bfloat16 if device.type == "cuda" or bfloat16_unit() is not None else None


def full_autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype of full-size training; None for the precision of the weights.

    There is no autocast on a GPU: with half-precision weights it would keep another copy of each weight for
    the backward pass, which memory plans do not count.
    """
    return autocast_dtype(device) if device.type == "cpu" else None


def device_name(device: torch.device) -> str:
    """Return a readable name of a device: the GPU with its memory, or the CPU with its threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GB)"
    if device.type == "cpu":
        return f"cpu ({_cpu_name()}, {torch.get_num_threads()} threads)"
    return str(device)


def attention_name(device: torch.device) -> str:
    """Return a description of the attention kernels in use."""
    if device.type != "cuda":
        return f"torch's scaled_dot_product_attention, its {device.type.upper()} kernel"
    kernels = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "plain": torch.backends.cuda.math_sdp_enabled(),
    }
    return f"torch's scaled_dot_product_attention ({', '.join(name for name, on in kernels.items() if on)})"


def be_deterministic() -> None:
    """Make cuDNN deterministic, so that the same seed gives the same mesh."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def free_memory(device: torch.device) -> int | None:
    """Return the available memory of a device in bytes (main memory unless it is a GPU); None if unknown."""
    if device.type == "cuda":
        # Memory in torch's caching allocator is available to this process, too.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        return int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        return None


def wait_for(device: torch.device) -> None:
    """Wait for all operations on `device` to finish, for correct timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return "CPU"


@contextmanager
def explained_out_of_memory(sentence: str) -> Iterator[None]:
    """Context that replaces an out-of-memory error by a UserError with `sentence`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(sentence) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device or the host is out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return any(
        phrase in message
        for phrase in ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    )
