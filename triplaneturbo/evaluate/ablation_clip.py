"""Scores of the runs of an ablation by the PRD protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.evaluate.ablation_folder import AblationFolder
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.evaluate.ablation_scores import MESH_SEED, Figure
from triplaneturbo.evaluate.evaluation import OnProgress, evaluate
from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.generated_meshes import GeneratedMeshes, GenerationSettings
from triplaneturbo.evaluate.judges import JudgeFiles
from triplaneturbo.evaluate.methods import Item
from triplaneturbo.utils.distributed import DistributedContext


class ClipScorer:
    """Scores meshes by the PRD protocol; see `evaluate`.

    Args:
        folder: the ablation.
        evaluation: the evaluation that all runs share.
        judge: the CLIP model.
        settings: what meshes are generated with; adapter and steps are those of the run.
        prompts: prompts to score, the first of the evaluation's gallery.
        device: device of this process; None for the best available one.
        on_progress: see `evaluation.OnProgress`.
    """

    figures = (
        Figure("clip_score", "CLIPScore"),
        Figure("r_at_1_view", "R@1 per view, %", 100),
        Figure("r_at_1_object", "R@1 per object, %", 100),
        Figure("empty", "empty", decimals=1),
    )

    def __init__(
        self,
        folder: AblationFolder,
        evaluation: Evaluation,
        judge: JudgeFiles,
        settings: GenerationSettings,
        prompts: Sequence[str],
        device: str | None,
        on_progress: OnProgress,
    ) -> None:
        self._folder, self._evaluation, self._judge = folder, evaluation, judge
        self._settings, self._device, self._on_progress = settings, device, on_progress
        self._items = [Item(prompt, index, MESH_SEED) for index, prompt in enumerate(prompts)]
        self.notes = (
            f"{evaluation.protocol.source}: {how_many(len(self._items))}, judged by {judge.name} among"
            f" {len(evaluation.gallery):,}.",
            *filter(None, [judge.deviation(evaluation.protocol.clips)]),
        )

    def score(self, run: AblationRun, context: DistributedContext) -> dict[str, Any] | None:
        """See `Scorer`; all processes share the objects.

        Raises:
            UserError: see `evaluate`; or the folder of the evaluation holds another one.
        """
        if context.is_main_process:
            self._evaluation.claim()
        settings = replace(self._settings, adapter=run.name, steps=run.variant.steps)
        method = GeneratedMeshes(
            settings, self._items, self._evaluation.meshes, self._device, self._folder.adapters
        )
        self._evaluate(method, context.device, context.rank, context.size)
        context.wait()
        if not context.is_main_process:
            return None
        if context.size > 1:  # the scores of what all processes have made
            self._evaluate(method, context.device, 0, 1)
        for path in sorted((self._evaluation.folder / "results").glob("*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["identity"] == method.identity and result["clip"]["key"] == self._judge.key:
                means = {name: interval["mean"] for name, interval in result["figures"].items()}
                return {"figures": {**means, "empty": len(result["empty"])}, "evaluation": path.name}
        raise AssertionError("an evaluation writes its result")

    def baseline(self) -> None:
        """Return None: there is no row to compare with."""

    def _evaluate(self, method: GeneratedMeshes, device: torch.device, rank: int, size: int) -> None:
        evaluate(self._evaluation, method, [self._judge], device, 0, self._on_progress, rank, size)
