"""Open vocabulary: models based on Stable Diffusion, which take any words."""

from __future__ import annotations

from typing import Any

from triplaneturbo.domains.domain import Domain, License, Measure
from triplaneturbo.models.config import OPEN

_TRY: dict[str, Any] = {
    "iterations": 50,
    "batch": 1,
    "learning_rate": 2e-4,
    "optimizer": "adan",
    "preview_every": 25,
}
OPEN_VOCABULARY = Domain(
    name=OPEN,
    label="open-vocabulary",
    teachers=("mvdream", "richdreamer", "sd"),
    presets={
        "try": _TRY,
        "short": {**_TRY, "iterations": 500, "preview_every": 50},
        "thorough": {**_TRY, "iterations": 5000, "batch": 2, "preview_every": 250},
    },
    license=License(
        "openrail++",
        "Stable Diffusion 2.1-base, CreativeML Open RAIL++-M, whose restrictions of use hold here, too",
    ),
    measures=(
        Measure("r_at_1", "R@1", "CLIP", "how often it retrieves the prompt; 1 is best"),
        Measure("empty", "empty", "Empty", "results without a surface"),
    ),
    materials=(
        "made of wood",
        "made of polished gold",
        "carved in white marble",
        "made of rusty iron",
        "knitted from colourful wool",
        "made of blue glass",
        "covered in moss",
        "painted with red and white stripes",
    ),
    training_source="triplaneturbo.finetune.setup_full:TRAINING",
)
