"""Which device, precision and attention a model runs with, and why."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class DeviceChoice(NamedTuple):
    """A device and the reason for it."""

    device: torch.device
    why: str


class PrecisionChoice(NamedTuple):
    """A precision and the reason for it."""

    dtype: torch.dtype
    why: str


def choose_device(asked: str | None = None) -> DeviceChoice:
    """The device called `asked` ("cpu", "cuda", "cuda:1", "mps"); for None or "auto", the best there is.

    Raises:
        UserError: there is no such device.
    """
    if asked in (None, "auto"):
        if torch.cuda.device_count() == 0:
            return DeviceChoice(torch.device("cpu"), "no CUDA device was found")
        number = torch.cuda.current_device() if torch.cuda.is_available() else 0
        unfit = _unfit(number)
        if unfit:
            return DeviceChoice(torch.device("cpu"), unfit)
        return DeviceChoice(torch.device("cuda", number), "a CUDA device was found")
    try:
        device = torch.device(asked)
    except (RuntimeError, TypeError):
        raise UserError(f"There is no device {shown(asked)}; use cpu, cuda, cuda:1 or mps.") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in there or (device.index or 0) >= there[device.type]:
        have = ", ".join(f"{kind}:{i}" if i else kind for kind, n in there.items() for i in range(n))
        raise UserError(f"This machine has no device {shown(asked)}; it has {have}.")
    unfit = _unfit(device.index or 0) if device.type == "cuda" else ""
    if unfit:
        raise UserError(f"{unfit[:1].upper()}{unfit[1:]}; use --device cpu.")
    return DeviceChoice(device, "asked for")


def choose_devices(asked: str | None = None) -> list[DeviceChoice]:
    """The devices called `asked`: one as in `choose_device`, several as in "cuda:0,cuda:1", or "all" GPUs.

    Raises:
        UserError: there is no such device.
    """
    if asked == "all":
        count = torch.cuda.device_count()
        if count == 0:
            raise UserError("There is no CUDA device, of which --device all takes all: leave --device out.")
        fit = [number for number in range(count) if not _unfit(number)]
        if not fit:
            raise UserError(f"No CUDA device can be used: {_unfit(0)}; use --device cpu.")
        return [DeviceChoice(torch.device("cuda", number), "all were asked for") for number in fit]
    if asked is None or "," not in asked:
        return [choose_device(asked)]
    return [choose_device(part.strip()) for part in asked.split(",")]


def _unfit(number: int) -> str:
    """Why a CUDA device that is there cannot be used, "" if it can."""
    if not torch.cuda.is_available():
        return f"the GPU's driver is too old for this torch, which wants CUDA {torch.version.cuda}: update it"
    major, minor = torch.cuda.get_device_capability(number)
    found = (re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in torch.cuda.get_arch_list())
    made = [(match[1], int(match[2]), int(match[3])) for match in found if match]  # none for ROCm
    for kind, its_major, its_minor in made:
        # Machine code serves its own generation from its step on, what is still to be compiled all later.
        if kind == "sm" and its_major == major and its_minor <= minor:
            return ""
        if kind == "compute" and (its_major, its_minor) <= (major, minor):
            return ""
    if not made:
        return ""
    least = min((a, b) for _, a, b in made)
    old = "too old" if (major, minor) < least else "unknown"
    name = torch.cuda.get_device_properties(number).name
    return (
        f"the {name} (compute capability {major}.{minor}) is {old} for this torch, made for"
        f" {least[0]}.{least[1]} on"
    )


def choose_precision(asked: str, device: torch.device, small: bool) -> PrecisionChoice:
    """The precision of the generator: `asked`, or for "auto" the quickest that is exact enough.

    Raises:
        UserError: `asked` is no precision.
    """
    if asked != "auto":
        if asked not in PRECISIONS:
            names = f"{', '.join(list(PRECISIONS)[:-1])} or {list(PRECISIONS)[-1]}"
            raise UserError(f"The precision should be auto, {names}, not {shown(asked)}.")
        return PrecisionChoice(PRECISIONS[asked], "asked for")
    if small:
        return PrecisionChoice(torch.float32, "the model is small, so that lower precision gains nothing")
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return PrecisionChoice(
                torch.float16, "this GPU has it in hardware, and it is nearer than bfloat16"
            )
        return PrecisionChoice(torch.float32, "this GPU has no quick float16")
    unit = bfloat16_unit() if device.type == "cpu" else None
    if unit:
        return PrecisionChoice(torch.bfloat16, f"this CPU has it in hardware ({unit})")
    return PrecisionChoice(
        torch.float32, f"this {device.type.upper()} is not known to be quicker in bfloat16"
    )


@functools.cache
def bfloat16_unit() -> str | None:
    """The CPU's unit for products in bfloat16 ("AMX" or "AVX-512"), or None where none is known of."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return "AMX" if "amx_bf16" in words else "AVX-512" if "avx512_bf16" in words else None


def device_name(device: torch.device) -> str:
    """The device as a person would name it: the GPU's name and memory, or the CPU's and its threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GB)"
    if device.type == "cpu":
        return f"cpu ({_cpu_name()}, {torch.get_num_threads()} threads)"
    return str(device)


def attention_name(device: torch.device) -> str:
    """What computes attention."""
    if device.type != "cuda":
        return f"torch's scaled_dot_product_attention, its {device.type.upper()} kernel"
    kernels = {
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "plain": torch.backends.cuda.math_sdp_enabled(),
    }
    return f"torch's scaled_dot_product_attention ({', '.join(name for name, on in kernels.items() if on)})"


def be_deterministic() -> None:
    """Have CUDA's convolutions give the same numbers each time: the same seed is to give the same mesh."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def free_memory(device: torch.device) -> int | None:
    """Bytes of a device's memory that this process may still take: a GPU's own, else the main memory.

    None: this system does not tell.
    """
    if device.type == "cuda":
        # What torch keeps for later is this process's, too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        return int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        return None


def wait_for(device: torch.device) -> None:
    """Return once everything asked of `device` is done, so that clocks tell the truth."""
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of whatever device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return any(
        words in said
        for words in ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
    )
