"""Short runs of the toy problem, and access to their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.helpers import toy
from triplaneturbo.distill import prd
from triplaneturbo.distill.settings import Settings
from triplaneturbo.utils.distributed import DistributedContext


def trainer(folder: Path, settings: Settings = toy.SETTINGS, **how: Any) -> prd.Trainer:
    """Create a trainer in `folder`; keyword arguments may replace the student and its teachers."""
    student, teachers = how.pop("student", None), how.pop("teachers", None)
    return prd.Trainer(
        DistributedContext(),
        student or toy.student(),
        teachers or toy.teachers(),
        toy.draw,
        settings,
        folder,
        **how,
    )


def newest(folder: Path) -> dict[str, Any]:
    """Load the newest checkpoint of the run in `folder`."""
    return torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)


def learned(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return all trained tensors of a checkpoint, including critics and averages."""
    critics = {
        f"critic {name} {i}": value
        for name, critic in state["critics"].items()
        for i, value in enumerate(critic["weights"])
    }
    return {**state["weights"], **{f"average {name}": p for name, p in state["average"].items()}, **critics}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether both have the same names and bit-identical tensors."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
