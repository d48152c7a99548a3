"""Warm-up: it compiles every kernel that a request uses."""

from __future__ import annotations

import importlib
import pkgutil

import torch

from triplaneturbo import mesh
from triplaneturbo.mesh.warmup import spiral_ramp, warmup
from triplaneturbo.render import zbuffer


def test_warmup_compiles_every_mesh_kernel() -> None:
    warmup()
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(mesh.__path__, f"{mesh.__name__}.")
    ]
    kernels = {
        value for module in [*modules, zbuffer] for value in vars(module).values() if _is_kernel(value)
    }
    # A kernel that others call is compiled as a part of them.
    inner = {name for kernel in kernels for name in kernel.py_func.__code__.co_names}
    assert len(kernels) > 20
    assert {kernel.py_func.__name__ for kernel in kernels if not kernel.signatures} <= inner


def _is_kernel(value: object) -> bool:
    return hasattr(value, "py_func")


def test_warmup_mesh_overlaps_itself() -> None:
    ramp = spiral_ramp()
    normals = torch.linalg.cross(
        *(ramp.vertices[ramp.faces[:, i]] - ramp.vertices[ramp.faces[:, 0]] for i in (1, 2))
    )
    assert (normals[:, 2].abs() > normals[:, :2].norm(dim=1)).all()
