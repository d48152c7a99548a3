"""Short runs of the toy, and what they leave."""

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
    """A trainer of a new student in `folder`; `how` may replace the student and its teachers."""
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
    """The newest checkpoint of the run in `folder`."""
    return torch.load(max((folder / "checkpoints").glob("*.pt")), weights_only=True)


def learned(state: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint that learn, critics and averages among them."""
    critics = {
        f"critic {name} {i}": value
        for name, critic in state["critics"].items()
        for i, value in enumerate(critic["weights"])
    }
    return {**state["weights"], **{f"average {name}": p for name, p in state["average"].items()}, **critics}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both have the same tensors by the same names, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
