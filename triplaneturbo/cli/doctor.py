"""check this machine for missing packages, devices, models and folders"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from triplaneturbo import __version__
from triplaneturbo.cli import DONE, PROBLEMS_FOUND
from triplaneturbo.cli.environment_checks import check_environment
from triplaneturbo.cli.finding import Finding, finding_from_error
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import misplaced_adapters
from triplaneturbo.models.catalog import CHECKOUT, ROOT, SMALL, find_full, find_model
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.serving.preflight import check_process

LEAST_DISK_GB = 2
LEAST_MEMORY_GB = 3
INSTALL = "run: make setup" if CHECKOUT else "install triplaneturbo again"
RESTORE = "git checkout -- checkpoints" if CHECKOUT else "install triplaneturbo again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--quick", action="store_true", help="skip the devices and the compiled kernels, which takes seconds"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0 if there is no problem, otherwise 1."""
    try:
        check_process()
        devices = () if arguments.quick else _devices()
        findings = [*_machine(), *_packages(), *devices, *_models(), *_adapters()]
        findings += check_environment(arguments.quick)
    except UserError as error:  # the other checks are impossible: torch aborts in a deleted folder
        findings = [finding_from_error("this process", error)]
    for finding in findings:
        mark = "FIX" if finding.remedy else "ok"
        print(f"{mark:5} {finding.what:20} {finding.found}")
        if finding.remedy:
            print(f"{'':26} -> {finding.remedy}")
    problems = sum(bool(finding.remedy) for finding in findings)
    print(
        "No problems found." if not problems else f"Problems found: {problems}. Arrows show how to fix them."
    )
    return PROBLEMS_FOUND if problems else DONE


def _machine() -> Iterator[Finding]:
    yield Finding("triplaneturbo", __version__)
    old = sys.version_info < (3, 10)
    remedy = "install Python 3.10 or newer, then: make setup PYTHON=python3.12" if old else ""
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}", remedy)
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    remedy = f"free disk space: meshes and caches need {LEAST_DISK_GB} GB" if free < LEAST_DISK_GB else ""
    yield Finding("free disk", f"{free:.1f} GB in {Path.cwd()}", remedy)
    memory = _free_memory_gb()
    if memory is None:
        yield Finding("free memory", "unknown on this system")
    else:
        remedy = "close other programs; the small model needs about 2 GB" if memory < LEAST_MEMORY_GB else ""
        yield Finding("free memory", f"{memory:.1f} GB", remedy)


def _packages() -> Iterator[Finding]:
    for name, least in requirements():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "missing", INSTALL)
            continue
        old = _numbers(version) < _numbers(least)
        yield Finding(name, version, f"{least} or newer is needed; {INSTALL}" if old else "")


def _devices() -> Iterator[Finding]:
    try:
        import torch

        from triplaneturbo.render.rasterizer import rasterizer
        from triplaneturbo.utils.devices import bfloat16_unit, choose_device, device_name
    except (ImportError, OSError) as error:
        yield Finding("device", f"torch cannot be imported: {error}", INSTALL)
        return
    device, why = choose_device()
    yield Finding("device", f"{device_name(device)}: {why}")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        yield Finding(
            "CUDA", "a driver is installed, but torch cannot use it", "update the driver, or reinstall torch"
        )
    unit = bfloat16_unit()
    yield Finding(
        "bfloat16 on the CPU", f"in hardware ({unit})" if unit else "not in hardware; float32 is used"
    )
    name = rasterizer(device)
    optional = "; nvdiffrast is optional, see requirements-cuda.txt" if name != "nvdiffrast" else ""
    yield Finding("rasteriser", name + (optional if torch.cuda.is_available() else ""))


def _models() -> Iterator[Finding]:
    try:
        found = find_model("small", on_gpu=False)
        trained = GeneratorConfig.load(found.folder).untrained_seed is None
        yield Finding("small model", f"{found.folder}{'' if trained else ' (untrained)'}")
    except UserError as error:
        yield Finding("small model", str(error), f"restore {SMALL}: {RESTORE}")
    try:
        full = find_full()
        yield Finding("full model", str(full.folder) if full else "not downloaded (optional)")
    except ImportError:
        yield Finding("full model", "unknown: huggingface_hub is not installed")


def _adapters() -> Iterator[Finding]:
    for sentence in misplaced_adapters():
        what, _, remedy = sentence.partition(": ")
        yield Finding("adapter", what, remedy)


def requirements(python: tuple[int, ...] = sys.version_info[:2]) -> list[tuple[str, str]]:
    """Return the packages that a version of Python requires, each with its minimum version."""
    if CHECKOUT:
        text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    else:
        text = "\n".join(metadata.requires("triplaneturbo") or ())
    pattern = r'^([A-Za-z0-9_.-]+)>=([0-9.]+)(?: *; *python_version *>= *"([0-9.]+)")?'
    found = re.findall(pattern, text, flags=re.MULTILINE)
    return [(name, least) for name, least, oldest in found if _numbers(oldest) <= list(python)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.match(r"[0-9.]*", version)[0].split(".") if number]  # type: ignore[index]


def _free_memory_gb() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        return int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) * 1024 / 1e9  # type: ignore[index]
    except (OSError, TypeError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, OSError, ValueError):
        return None
