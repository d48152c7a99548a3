"""How the full model learns a user's prompts: from MVDream, RichDreamer and Stable Diffusion."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.corpora.corpus import make_corpus
from triplaneturbo.distill.corpora.shuffle import drawn
from triplaneturbo.distill.memory.plan import Plan
from triplaneturbo.distill.prd import Draw, Place, Student
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.memory_plan import autocast_dtype, full_plan, full_settings
from triplaneturbo.finetune.setup import (
    CORPUS,
    TrainingSetup,
    learned_prompts,
    make_student,
    resume_fingerprint,
)
from triplaneturbo.models.catalog import ModelFiles, TeacherFiles, get_teachers
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.cameras import orbit
from triplaneturbo.teachers.base import SceneBatch, Teacher
from triplaneturbo.teachers.full import load_full_teachers
from triplaneturbo.teachers.stable_diffusion import Base, plain_base
from triplaneturbo.utils.distributed import DistributedContext

VIEWS = 4
_FOVY, _ELEVATIONS, _DISTANCES = 60.0, (0.0, 30.0), (0.8, 1.0)  # degrees; distances in 1 / tan(fovy / 2)


def setup_full(
    order: FinetuneConfig, found: ModelFiles, config: GeneratorConfig, team: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """See `prepare.prepare`."""
    yield "counting the memory"
    how = full_plan(order, found, config, team.device)
    settings = full_settings(order, config, team.device)
    if order.corpus:
        if team.is_main_process:
            made = make_corpus(Path(order.corpus), folder / CORPUS, order.column or None, order.held_out)
            for count in made:
                yield f"reading the corpus: {count:,} prompts"
        team.wait()
    prompts = learned_prompts(order, folder)
    yield "looking for the teachers"
    files = get_teachers(settings.teachers)
    yield "loading the model and its teachers"
    student, teachers = load_parts(order, found, config, team, how, files)
    return TrainingSetup(
        student, config, teachers, draw_views(prompts, order.seed, team.device), settings,
        autocast_dtype(team.device), resume_fingerprint(order, found), found.folder,
    )  # fmt: skip


def load_parts(
    order: FinetuneConfig,
    found: ModelFiles,
    config: GeneratorConfig,
    team: DistributedContext,
    how: Plan,
    files: TeacherFiles,
) -> tuple[Student, list[Teacher]]:
    """The student and its teachers, with the savings of a plan.

    Raises:
        UserError: a part is missing, broken or does not fit the others.
    """
    saved, settings = how.savings, full_settings(order, config, team.device)
    student = make_student(
        order, found, config, team, how.frozen, checkpointing=saved.checkpointing, text_on_cpu=saved.texts
    )
    sd = "sd" in settings.teachers
    base: Base = student.folded.base
    if sd and order.tuning == "full":  # the student's base learns, and teaches nothing
        base = plain_base(found.base or found.folder, team.device, how.frozen)
    teachers = load_full_teachers(
        student.generator, base, student.embed, files.mvdream, files.richdreamer, files.text,
        sd=sd, text_on_cpu=saved.texts,
        view_by_view=saved.views, offload=saved.offload_teachers, autocast=autocast_dtype(team.device),
    )  # fmt: skip
    return student, teachers


def draw_views(prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Draws every prompt equally often, and for each step other cameras and backgrounds.

    The cameras are the paper's: four a quarter turn apart from anywhere, at one elevation of 0 to 30 degrees
    and one distance (facts/teachers.md 3).
    """

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[SceneBatch]:
        everyone, mine = count * place.size, place.own(count)
        numbers = drawn(len(prompts), seed, place.iteration * everyone, everyone)[mine]
        texts = [prompts[number] for number in numbers]
        out = []
        for _ in range(steps):
            turn, elevation, distance = (
                rng.random(everyone)[mine], rng.uniform(*_ELEVATIONS, everyone)[mine],
                rng.uniform(*_DISTANCES, everyone)[mine],
            )  # fmt: skip
            azimuths = (turn[:, None] + np.arange(VIEWS)) / VIEWS * 360 - 180  # [B, V]
            cameras = orbit(
                azimuths.ravel().tolist(),
                np.repeat(elevation, VIEWS).tolist(),
                (np.repeat(distance, VIEWS) / np.tan(np.radians(_FOVY) / 2)).tolist(),
                _FOVY,
            )
            ground = torch.from_numpy(rng.random((everyone, 3), dtype=np.float32))[mine]
            out.append(SceneBatch(texts, cameras.to(device), VIEWS, ground.to(device)))
        return out

    return draw
