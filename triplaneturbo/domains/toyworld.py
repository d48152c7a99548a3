"""The toy world: models of the closed vocabulary of `triplaneturbo.toyworld`, such as the built-in one."""

from __future__ import annotations

from typing import Any

from triplaneturbo.domains.domain import Domain, License, Measure
from triplaneturbo.models.config import TOYWORLD

_TRY: dict[str, Any] = {
    "iterations": 50,
    "batch": 8,
    "learning_rate": 1e-3,
    "optimizer": "soap",
    "scored_steps": 1,
    "preview_every": 25,
}
TOY_WORLD = Domain(
    name=TOYWORLD,
    label="toy-world",
    teachers=("rgb", "geometry", "sd"),
    presets={
        "try": _TRY,
        "short": {**_TRY, "iterations": 600, "preview_every": 50},
        "thorough": {**_TRY, "iterations": 3000, "preview_every": 250},
    },
    license=License("apache-2.0", "the built-in model of triplaneturbo, Apache License 2.0"),
    measures=(
        Measure("volume_iou", "volume IoU", "Volume", "IoU with the true shape; 1 is best"),
        Measure("silhouette_iou", "silhouette IoU", "Silhouette", "IoU of the silhouettes; 1 is best"),
        Measure("color_error", "colour error", "Colour", "error; 0 is best"),
        Measure("r_at_1", "R@1", "CLIP", "how often it retrieves the prompt; 1 is best"),
        Measure("empty", "empty", "Empty", "results without a surface"),
    ),
    training_source="triplaneturbo.finetune.setup_toyworld:TRAINING",
    vocabulary_source="triplaneturbo.toyworld.captions.vocabulary:VOCABULARY",
    has_ground_truth=True,
    takes_pictures=True,
    refine_seconds=(5.0, 0.5),
)
