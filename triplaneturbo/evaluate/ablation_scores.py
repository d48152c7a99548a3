"""What scores the adapters of an ablation: its columns, its figures of a run, and a row to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.utils.distributed import DistributedContext

MESH_SEED = 0  # the runs differ in their training; their meshes start from the same noise


@dataclass(frozen=True)
class Figure:
    """A column of the tables: the figure `key` times `scale`, with some decimals."""

    key: str
    heading: str
    scale: float = 1.0
    decimals: int = 2


class Scorer(Protocol):
    """Scores the adapter of a run."""

    @property
    def figures(self) -> Sequence[Figure]:
        """Return the measured columns."""

    @property
    def notes(self) -> Sequence[str]:
        """Return sentences on what the figures mean."""

    def score(self, run: AblationRun, context: DistributedContext) -> dict[str, Any] | None:
        """Return the "figures" of a run and more to record; None in all but the main process."""

    def baseline(self) -> tuple[str, dict[str, Any]] | None:
        """Return the label and the figures of a row to compare with; None if there is none."""
