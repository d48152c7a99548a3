"""Judge of open-vocabulary runs: CLIP retrieval among the evaluated prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from triplaneturbo.evaluate.clip import rank
from triplaneturbo.finetune.judge import load_clip
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.render.cameras import orbit
from triplaneturbo.toyworld.scoring.generated import Generated, photograph

_GREY = (0.8, 0.8, 0.8)


class RetrievalJudge:
    """Scores a mesh by how many other prompts CLIP finds closer to it; 0 is best.

    Without a CLIP in the model's folder, only empty surfaces are counted.

    Args:
        training_setup: setup of the run.
        prompts: evaluated prompts.
    """

    def __init__(self, training_setup: TrainingSetup, prompts: Sequence[str]) -> None:
        self.prompts = tuple(prompts)
        self._clip = load_clip(training_setup.folder)

    def score(self, generated: Generated | None, prompt: str) -> dict[str, Any]:
        """Return "rank", or None without a CLIP, and "empty"."""
        retrieval_rank = None
        if self._clip is not None:
            worst = len(self.prompts) - 1
            retrieval_rank = worst if generated is None else self._rank(generated, prompt)
        return {"rank": retrieval_rank, "empty": generated is None}

    def summary(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return "count", "r_at_1" (None without a CLIP) and the number of "empty" surfaces."""
        ranks = [entry["rank"] for entry in entries]
        hits = None if None in ranks else sum(r < 1 for r in ranks) / len(ranks)
        return {"count": len(entries), "r_at_1": hits, "empty": sum(entry["empty"] for entry in entries)}

    def reference(self, prompt: str) -> None:
        """Return None: there is no ground truth."""
        return None

    def _rank(self, generated: Generated, prompt: str) -> int:
        assert self._clip is not None
        cameras = orbit([45.0, 135.0, 225.0, 315.0], 20.0, 2.45)
        photos = photograph(generated, cameras, self._clip.size, _GREY)[None]
        target = torch.tensor([self.prompts.index(prompt)])
        return int(rank(self._clip.embed_views(photos), self._clip.embed_texts(self.prompts), target))
