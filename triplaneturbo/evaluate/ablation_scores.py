"""Scores of the runs of an ablation: against the ground truth of the toy world, or by the PRD protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch

from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.evaluate.ablation_folder import AblationFolder
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.evaluate.clip import CONFIG_NAME, Clip
from triplaneturbo.evaluate.evaluation import OnProgress, evaluate
from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.generated_meshes import GeneratedMeshes, GenerationSettings
from triplaneturbo.evaluate.judges import JudgeFiles
from triplaneturbo.evaluate.methods import Item
from triplaneturbo.models.adapter_switch import AdapterSwitch
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring.generated import Generated, make_generate, sphere
from triplaneturbo.toyworld.scoring.score import score, summary
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext

_MESH_SEED = 0  # the runs differ in their training; their meshes start from the same noise


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


class ToyworldScorer:
    """Compares meshes with the ground truth of the toy world.

    Args:
        folder: the ablation.
        model_files: the built-in model, or another one of the toy world.
        specs: specs to score.
        device: device of the model.
    """

    figures = (
        Figure("volume_iou", "volume IoU", decimals=3),
        Figure("silhouette_iou", "silhouette IoU", decimals=3),
        Figure("color_error", "colour error", decimals=3),
        Figure("r_at_1", "R@1, %", 100, decimals=1),
        Figure("empty", "empty", decimals=1),
    )

    def __init__(
        self, folder: AblationFolder, model_files: ModelFiles, specs: Sequence[Spec], device: torch.device
    ) -> None:
        self._folder, self._specs = folder, list(specs)
        self._model_files, self._device = model_files, device
        self.notes = (
            f"Toy world: {how_many(len(self._specs))}, a mesh each, compared with the nearest instance; R@1"
            " by the built-in CLIP among all captions of the world.",
            "In the toy world `rgb` stands for MVDream and `geometry` for RichDreamer; all teachers score"
            " both renderings.",
        )

    def score(self, run: AblationRun, context: DistributedContext) -> dict[str, Any] | None:
        """See `Scorer`."""
        if not context.is_main_process:
            return None
        self._switch.use(self._folder.adapter(run))
        config = replace(self._model.config, steps=run.variant.steps)
        scores = self._scores(make_generate(replace(self._model, config=config)))
        return {
            "figures": summary(scores["results"]),
            "groups": scores["model"],
            "results": scores["results"],
        }

    def baseline(self) -> tuple[str, dict[str, Any]]:
        """Return the scores of a grey sphere, which an untrained model has."""
        path = self._folder.folder / "sphere.json"
        if not path.is_file():
            baseline = sphere()
            figures = summary(self._scores(lambda prompt, seed: baseline)["results"])
            write_atomically(path, (json.dumps(figures) + "\n").encode())
        return "a grey sphere", json.loads(path.read_text(encoding="utf-8"))

    def _scores(self, generate: Callable[[str, int], Generated]) -> dict[str, Any]:
        return score(generate, self._specs, (_MESH_SEED,), self._judge)

    @cached_property
    def _model(self) -> Model:
        return load_model(self._model_files.folder, base=self._model_files.base, device=self._device)

    @cached_property
    def _switch(self) -> AdapterSwitch:
        return AdapterSwitch(self._model, self._model_files.base or self._model_files.folder)

    @cached_property
    def _judge(self) -> Judge | None:
        place = self._model_files.folder / "clip"
        return Judge(Clip.load(place)) if (place / CONFIG_NAME).is_file() else None


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
        self._items = [Item(prompt, index, _MESH_SEED) for index, prompt in enumerate(prompts)]
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
