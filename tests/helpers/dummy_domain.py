"""A domain of coloured blocks, for the test of the registry."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from tests.helpers import toy
from tests.helpers.released_files import small_text
from triplaneturbo.distill.prd import Place
from triplaneturbo.domains.domain import Domain, License, Measure
from triplaneturbo.domains.vocabulary import Vocabulary
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.domain_training import DomainTraining
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.finetune.setup import TrainingSetup, make_student, resolve_settings, resume_fingerprint
from triplaneturbo.models.adapter import ADAPTER_NAME, save_adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.teachers.load import load_teachers, teacher_files
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score_report import portrait
from triplaneturbo.toyworld.training.sizes import make_scheduler
from triplaneturbo.utils.distributed import DistributedContext

_SHORTEST = {"iterations": 2, "batch": 1, "learning_rate": 1e-3, "optimizer": "adamw", "preview_every": 0}
_SETTINGS = replace(toy.CHEAP, teachers={})


@dataclass(frozen=True)
class BlockReading:
    """Result of `read`."""

    unknown: tuple[str, ...]
    why: str = ""


def read(prompt: str) -> BlockReading:
    """Accept "red", "green" and "block"."""
    unknown = [word for word in prompt.split() if word not in ("a", "red", "green", "block")]
    why = "" if unknown or "block" in prompt else "It names no block."
    return BlockReading(tuple(dict.fromkeys(unknown)), why)


VOCABULARY = Vocabulary(
    words={"shapes": ["block"], "paints": ["red", "green"]},
    headings={"shapes": "Shapes", "paints": "Paints"},
    counted=("shapes", "paints"),
    examples=("a red block", "a green block"),
    read=read,
    looks=lambda prompt: tuple(block for block in ("a red block", "a green block") if block != prompt),
)


def setup_blocks(
    run_config: FinetuneConfig, model_files: ModelFiles, config: GeneratorConfig,
    context: DistributedContext, folder: Path,
) -> Generator[str, None, TrainingSetup]:  # fmt: skip
    """See `prepare.prepare`."""
    yield "stacking blocks"
    settings = resolve_settings(_SETTINGS, run_config, config)
    student = make_student(run_config, model_files, config, context, settings, torch.float32)
    teacher_context = TeacherContext(
        student.generator, student.merged_lora.base, student.embed, student.generator.device
    )

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[SceneBatch]:
        scenes = toy.draw(rng, count, steps, place)
        return [replace(scene, prompts=list(run_config.prompts[:count])) for scene in scenes]

    return TrainingSetup(
        student, config, load_teachers(teacher_files(settings.teachers), teacher_context), draw, settings,
        None, resume_fingerprint(run_config, model_files), model_files.folder,
    )  # fmt: skip


class BrightnessJudge:
    """Scores a mesh by the mean brightness of its picture."""

    def __init__(self, training_setup: TrainingSetup, prompts: Sequence[str]) -> None:
        self.prompts = tuple(prompts)

    def score(self, generated: Generated | None, prompt: str) -> dict[str, Any]:
        return {"brightness": float(portrait(generated).mean()) / 255, "number": self.prompts.index(prompt)}

    def summary(self, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {"count": len(entries), "brightness": fmean(entry["brightness"] for entry in entries)}

    def reference(self, prompt: str) -> np.ndarray:
        return np.full_like(portrait(None), 128)


def estimate(config: FinetuneConfig, steps: int) -> Estimate:
    """Estimate one second per denoising step."""
    return Estimate(config.iterations * steps, 2**30, f"About {config.iterations * steps} seconds.")


TRAINING = DomainTraining(setup_blocks, BrightnessJudge, estimate)
DOMAIN = Domain(
    name="blocks",
    label="blocks",
    teachers=("grey",),
    presets={
        "try": _SHORTEST,
        "short": {**_SHORTEST, "iterations": 4},
        "thorough": {**_SHORTEST, "batch": 2},
    },
    license=License("mit", "a heap of blocks"),
    measures=(Measure("brightness", "brightness", "Brightness", "of the picture; 1 is white"),),
    training_source="tests.helpers.dummy_domain:TRAINING",
    vocabulary_source="tests.helpers.dummy_domain:VOCABULARY",
    has_ground_truth=True,
)


def blocks_model(folder: Path) -> Path:
    """Write a tiny model of the domain with random weights to `folder`; return `folder`."""
    torch.manual_seed(0)
    unet, vae = toy.networks()
    scheduler = make_scheduler()
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
        part.save_pretrained(folder / name)
    small_text(folder, unet.config.cross_attention_dim)
    config = replace(toy.CONFIG, domain=DOMAIN.name, grid_resolution=24)
    config.save(folder)
    save_adapter(TriplaneGenerator(unet, vae, scheduler, config), folder / ADAPTER_NAME)
    return folder
