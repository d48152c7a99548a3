"""`RunJudge`: scores of the meshes that a run's student generates before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from triplaneturbo.models.weights import CLIP_PART

if TYPE_CHECKING:
    from triplaneturbo.evaluate.clip import Clip
    from triplaneturbo.toyworld.scoring.generated import Generated


class RunJudge(Protocol):
    """Judge of one run; see `domains.domain.Domain.measures` for how scores are shown."""

    def score(self, generated: Generated | None, prompt: str) -> dict[str, Any]:
        """Return the scores of one mesh, which can be written as JSON; None: the surface is empty."""

    def summary(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the number of entries of `score` as "count", and their mean scores by key."""

    def reference(self, prompt: str) -> np.ndarray | None:
        """Return an image of what the prompt means, of the size of `portrait`; None if there is none."""


def load_clip(folder: Path) -> Clip | None:
    """Load the CLIP in the folder of a model; None if it has none."""
    from triplaneturbo.evaluate.clip import CONFIG_NAME, Clip

    clip_folder = folder / CLIP_PART
    return Clip.load(clip_folder) if (clip_folder / CONFIG_NAME).is_file() else None
