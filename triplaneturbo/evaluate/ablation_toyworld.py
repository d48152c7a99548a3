"""Scores of the runs of an ablation against the ground truth of the toy world."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.evaluate.ablation_folder import AblationFolder
from triplaneturbo.evaluate.ablation_runs import AblationRun
from triplaneturbo.evaluate.ablation_scores import MESH_SEED, Figure
from triplaneturbo.evaluate.clip import CONFIG_NAME, Clip
from triplaneturbo.models.adapter_switch import AdapterSwitch
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring.generated import Generated, make_generate, sphere
from triplaneturbo.toyworld.scoring.score import score, summary
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext


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
        return score(generate, self._specs, (MESH_SEED,), self._judge)

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
