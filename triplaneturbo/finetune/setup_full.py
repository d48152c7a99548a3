"""Training setup of the full model, with MVDream, RichDreamer and Stable Diffusion as teachers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triplaneturbo.distill.corpora.corpus import make_corpus
from triplaneturbo.distill.corpora.shuffle import sample_indices
from triplaneturbo.distill.memory_plan import Plan
from triplaneturbo.distill.prd import Draw, Place, Student
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.domain_training import DomainTraining
from triplaneturbo.finetune.duration import UNKNOWN
from triplaneturbo.finetune.memory_plan import full_plan, full_settings
from triplaneturbo.finetune.retrieval_judge import RetrievalJudge
from triplaneturbo.finetune.setup import (
    CORPUS,
    TrainingSetup,
    learned_prompts,
    make_student,
    resume_fingerprint,
)
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.load import load_teachers, teacher_files
from triplaneturbo.teachers.loader import Base, TeacherContext
from triplaneturbo.teachers.stable_diffusion import plain_base
from triplaneturbo.utils.devices import full_autocast_dtype
from triplaneturbo.utils.distributed import DistributedContext

VIEWS = 4
_FOVY, _ELEVATIONS, _DISTANCES = 60.0, (0.0, 30.0), (0.8, 1.0)  # degrees; distances in 1 / tan(fovy / 2)


def setup_full(
    run_config: FinetuneConfig,
    model_files: ModelFiles,
    config: GeneratorConfig,
    context: DistributedContext,
    folder: Path,
) -> Generator[str, None, TrainingSetup]:
    """See `prepare.prepare`."""
    yield "estimating the memory"
    plan = full_plan(run_config, model_files, config, context.device)
    settings = full_settings(run_config, config, context.device)
    if run_config.corpus:
        if context.is_main_process:
            progress = make_corpus(
                Path(run_config.corpus), folder / CORPUS, run_config.column or None, run_config.held_out
            )
            for count in progress:
                yield f"reading the corpus: {count:,} prompts"
        context.wait()
    prompts = learned_prompts(run_config, folder)
    yield "locating the teachers"
    files = teacher_files(settings.teachers)
    yield "loading the model and its teachers"
    student, teachers = load_parts(run_config, model_files, config, context, plan, files)
    return TrainingSetup(
        student, config, teachers, draw_views(prompts, run_config.seed, context.device), settings,
        full_autocast_dtype(context.device), resume_fingerprint(run_config, model_files), model_files.folder,
    )  # fmt: skip


def load_parts(
    run_config: FinetuneConfig,
    model_files: ModelFiles,
    config: GeneratorConfig,
    context: DistributedContext,
    plan: Plan,
    files: Mapping[str, Any],
) -> tuple[Student, list[Teacher]]:
    """Load the student and its teachers with the savings of a memory plan.

    Raises:
        UserError: if a part is missing, broken or incompatible.
    """
    savings, settings = plan.savings, full_settings(run_config, config, context.device)
    student = make_student(
        run_config,
        model_files,
        config,
        context,
        settings,
        plan.frozen,
        checkpointing=savings.checkpointing,
        text_on_cpu=savings.texts,
    )
    base: Base = student.merged_lora.base
    # If the student's base is trained, the teacher needs its own.
    if "sd" in settings.teachers and run_config.tuning == "full":
        base = plain_base(model_files.base or model_files.folder, context.device, plan.frozen)
    teacher_context = TeacherContext(
        student.generator, base, student.embed, student.generator.device, savings.offload_teachers,
        text_on_cpu=savings.texts, view_by_view=savings.views, autocast=full_autocast_dtype(context.device),
    )  # fmt: skip
    return student, load_teachers(files, teacher_context)


def draw_views(prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Return a `Draw` that samples prompts equally often, and new cameras and backgrounds for each step.

    The cameras are those of the paper: four views 90 degrees apart with a random azimuth, elevation (0 to 30
    degrees) and distance; see docs/teachers.md, "Cameras".
    """

    def draw(rng: np.random.Generator, count: int, steps: int, position: Place) -> list[SceneBatch]:
        total, own = count * position.size, position.own(count)
        numbers = sample_indices(len(prompts), seed, position.iteration * total, total)[own]
        texts = [prompts[number] for number in numbers]
        out = []
        for _ in range(steps):
            azimuth, elevation, distance = (
                rng.random(total)[own], rng.uniform(*_ELEVATIONS, total)[own],
                rng.uniform(*_DISTANCES, total)[own],
            )  # fmt: skip
            azimuths = (azimuth[:, None] + np.arange(VIEWS)) / VIEWS * 360 - 180  # [B, V]
            cameras = orbit(
                azimuths.ravel().tolist(),
                np.repeat(elevation, VIEWS).tolist(),
                (np.repeat(distance, VIEWS) / np.tan(np.radians(_FOVY) / 2)).tolist(),
                _FOVY,
            )
            background = torch.from_numpy(rng.random((total, 3), dtype=np.float32))[own]
            out.append(SceneBatch(texts, cameras.to(device), VIEWS, background.to(device)))
        return out

    return draw


TRAINING = DomainTraining(setup_full, RetrievalJudge, lambda _config, _steps: UNKNOWN, full_plan)
