"""Judge of toy-world runs: comparison with the ground truth (toyworld/scoring/score.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from triplaneturbo.finetune.judge import load_clip
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score import compare, summary
from triplaneturbo.toyworld.scoring.score_report import portrait
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.toyworld.training.data import meaning


class ToyworldRunJudge:
    """Scores a mesh by the instances of its prompt and, if the model's folder has a CLIP, by retrieval.

    Args:
        training_setup: setup of the run.
        prompts: evaluated prompts; not used, as retrieval is among all captions of the toy world.
    """

    def __init__(self, training_setup: TrainingSetup, prompts: Sequence[str]) -> None:
        clip = load_clip(training_setup.folder)
        self._clip_judge = None if clip is None else Judge(clip)

    def score(self, generated: Generated | None, prompt: str) -> dict[str, Any]:
        """Return the entry of `toyworld.scoring.score.compare`."""
        spec = meaning(prompt)
        return compare(generated, spec, ground_truth.occupancy(spec), self._clip_judge)[0]

    def summary(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return `toyworld.scoring.score.summary`."""
        return summary(entries)

    def reference(self, prompt: str) -> np.ndarray:
        """Return an image of one instance of the prompt."""
        return portrait(ground_truth.generated(meaning(prompt), 0))
