"""Training setup of toy-world models, with closed-form teachers and the model's own base.

Reference views of the prompts are rendered into the run's folder: 2 s and 13 MB per prompt.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.corpora.shuffle import sample_indices
from triplaneturbo.distill.prd import Draw, Place
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.domain_training import DomainTraining
from triplaneturbo.finetune.duration import estimate_small
from triplaneturbo.finetune.setup import (
    TrainingSetup,
    is_new,
    make_student,
    resolve_settings,
    resume_fingerprint,
)
from triplaneturbo.finetune.toyworld_judge import ToyworldRunJudge
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.toyworld.captions.captions import captions, trained_wording
from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY
from triplaneturbo.toyworld.scene.view_cache import RIGS, ViewCache
from triplaneturbo.toyworld.training.data import meaning
from triplaneturbo.toyworld.training.subset import SubsetCache, draw_subset
from triplaneturbo.toyworld.training.train import FINISHING, SMALL, make_teachers, scenes
from triplaneturbo.utils.devices import autocast_dtype
from triplaneturbo.utils.distributed import DistributedContext

_OWN_WORDS = 0.5  # probability of the user's wording instead of a paraphrase


def setup_toyworld(
    run_config: FinetuneConfig,
    model_files: ModelFiles,
    config: GeneratorConfig,
    context: DistributedContext,
    folder: Path,
) -> Generator[str, None, TrainingSetup]:
    """See `prepare.prepare`."""
    unsupported = VOCABULARY.misfits(run_config.prompts + run_config.held_out)
    if unsupported:
        raise UserError(
            f"The toy world cannot express {', '.join(map(repr, unsupported))}: remove these prompts."
        )
    specs = [meaning(prompt) for prompt in run_config.prompts]
    if context.is_main_process:
        for what in draw_subset(folder / "pool", specs):
            yield f"rendering {what}"
    context.wait()
    yield "loading the model"
    settings = resolve_settings(recipe_for(run_config, config), run_config, config)
    student = make_student(run_config, model_files, config, context, settings, torch.float32)
    pool = SubsetCache(folder / "pool", specs)
    full = run_config.tuning == "full"  # the student's base is trained, so the teacher needs its own
    teachers = make_teachers(student, pool, (model_files.base or model_files.folder) if full else None)
    return TrainingSetup(
        student, config, [teacher for teacher in teachers if teacher.name in settings.teachers],
        draw_prompts(pool, run_config.prompts, run_config.seed, context.device), settings,
        autocast_dtype(context.device), resume_fingerprint(run_config, model_files), model_files.folder,
    )  # fmt: skip


def recipe_for(run_config: FinetuneConfig, config: GeneratorConfig) -> Settings:
    """Return the recipe of a run: that of a finished model, unless the run starts with a new adapter.

    Raises:
        UserError: if the adapter to start from is not found.
    """
    return SMALL if is_new(SMALL, run_config, config) else FINISHING


def draw_prompts(pool: ViewCache, prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Return a `Draw` that samples prompts equally often, and a rig and background per step."""

    def draw(rng: np.random.Generator, count: int, steps: int, position: Place) -> list[SceneBatch]:
        total, own = count * position.size, position.own(count)
        numbers = sample_indices(len(prompts), seed, position.iteration * total, total)
        texts = [_paraphrase(prompts[number], rng) for number in numbers]
        rigs = [int(rng.permutation(RIGS)[step % RIGS]) for step in range(steps)]
        backgrounds = [torch.from_numpy(rng.random((total, 3), dtype=np.float32)) for _ in rigs]
        return [
            scenes(pool, texts[own], rig, background[own], device)
            for rig, background in zip(rigs, backgrounds, strict=True)
        ]

    return draw


def _paraphrase(prompt: str, rng: np.random.Generator) -> str:
    own, wordings = rng.random() < _OWN_WORDS, captions(meaning(prompt))
    other = wordings[int(rng.integers(len(wordings)))]
    return trained_wording(prompt) if own else other


TRAINING = DomainTraining(setup_toyworld, ToyworldRunJudge, estimate_small)
