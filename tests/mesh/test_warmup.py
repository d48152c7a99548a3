"""Warm-up: it compiles every kernel that a request uses."""

from __future__ import annotations

import importlib
import pkgutil

import torch

from triplaneturbo import mesh
from triplaneturbo.mesh.warmup import spiral_ramp, warmup
from triplaneturbo.render import zbuffer


def test_every_loop_of_the_mesh_is_compiled() -> None:
    warmup()
    modules = [
        importlib.import_module(f"{mesh.__name__}.{found.name}")
        for found in pkgutil.iter_modules(mesh.__path__)
    ]
    loops = {
        name: value
        for module in [*modules, zbuffer]
        for name, value in vars(module).items()
        if hasattr(value, "py_func")
    }
    # A kernel that others call is compiled as a part of them.
    inner = {name for loop in loops.values() for name in loop.py_func.__code__.co_names}
    assert len(loops) > 20
    assert {name for name, loop in loops.items() if not loop.signatures} <= inner


def test_the_spiral_lies_on_itself() -> None:
    ramp = spiral_ramp()
    normals = torch.linalg.cross(
        *(ramp.vertices[ramp.faces[:, i]] - ramp.vertices[ramp.faces[:, 0]] for i in (1, 2))
    )
    assert (normals[:, 2].abs() > normals[:, :2].norm(dim=1)).all()
