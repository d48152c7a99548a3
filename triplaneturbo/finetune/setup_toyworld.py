"""How a model of the small world learns a user's prompts: from the world's closed forms and its own base.

The solids of just these prompts are drawn into the run's folder: two seconds and 13 MB for each.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.corpora.shuffle import drawn
from triplaneturbo.distill.prd import Draw, Place
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import (
    TrainingSetup,
    make_student,
    precision,
    resolve_settings,
    resume_fingerprint,
)
from triplaneturbo.models.adapters import adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers.base import SceneBatch
from triplaneturbo.toyworld.captions.advice import misfits
from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.scene.view_cache import RIGS, ViewCache
from triplaneturbo.toyworld.training.data import meaning
from triplaneturbo.toyworld.training.subset import SubsetCache, draw_subset
from triplaneturbo.toyworld.training.train import SMALL, make_teachers, scenes
from triplaneturbo.utils.distributed import DistributedContext

_OWN_WORDS = 0.5  # how often a prompt is learned in the user's wording, and not in another of the world's


def setup_toyworld(
    order: FinetuneConfig, found: ModelFiles, config: GeneratorConfig, team: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """See `prepare.prepare`."""
    wrong = misfits(order.prompts + order.held_out)
    if wrong:
        raise UserError(f"The world cannot express {', '.join(map(repr, wrong))}: leave them out.")
    specs = [meaning(prompt) for prompt in order.prompts]
    if team.is_main_process:
        for what in draw_subset(folder / "pool", specs):
            yield f"drawing the world's {what}"
    team.wait()
    yield "loading the model"
    student = make_student(order, found, config, team, torch.float32)
    pool = SubsetCache(folder / "pool", specs)
    full = order.tuning == "full"  # then the student's base learns, and teaches nothing
    teachers = make_teachers(student, pool, (found.base or found.folder) if full else None)
    start = adapter(order.start) if order.start else None
    settings = resolve_settings(SMALL, order, config, start)
    return TrainingSetup(
        student, config, [teacher for teacher in teachers if teacher.name in settings.teachers],
        draw_prompts(pool, order.prompts, order.seed, team.device), settings, precision(team.device),
        resume_fingerprint(order, found), found.folder,
    )  # fmt: skip


def draw_prompts(pool: ViewCache, prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Draws every prompt equally often, in any wording, and for each step another rig and background."""

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[SceneBatch]:
        everyone, mine = count * place.size, place.own(count)
        numbers = drawn(len(prompts), seed, place.iteration * everyone, everyone)
        texts = [_worded(prompts[number], rng) for number in numbers]
        rigs = [int(rng.permutation(RIGS)[step % RIGS]) for step in range(steps)]
        grounds = [torch.from_numpy(rng.random((everyone, 3), dtype=np.float32)) for _ in rigs]
        return [
            scenes(pool, texts[mine], rig, ground[mine], device)
            for rig, ground in zip(rigs, grounds, strict=True)
        ]

    return draw


def _worded(prompt: str, rng: np.random.Generator) -> str:
    own, wordings = rng.random() < _OWN_WORDS, captions(meaning(prompt))
    other = wordings[int(rng.integers(len(wordings)))]
    return prompt if own else other
