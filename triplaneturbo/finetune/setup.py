"""TrainingSetup: student, teachers, batch sampling and trainer settings of a run.

Each domain has its own set-up: setup_toyworld.py has closed-form teachers, setup_full.py has MVDream,
RichDreamer and Stable Diffusion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.distill.corpora.corpus import Corpus
from triplaneturbo.distill.corpora.embeddings import Embeddings, encoder_mark
from triplaneturbo.distill.prd import Draw, Student
from triplaneturbo.distill.settings import Settings
from triplaneturbo.distill.student import load_student
from triplaneturbo.domains.domain import Domain
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import NEW_ADAPTER, FinetuneConfig
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.distributed import DistributedContext

CORPUS = "corpus"  # subfolder of a run with a cleaned copy of its corpus


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that training needs.

    Attributes:
        student: the trained model.
        config: configuration of the model.
        teachers: teachers of the run.
        draw: samples prompts, cameras and backgrounds.
        settings: settings of the trainer.
        autocast: autocast precision of the U-Net and the decoder; None for the precision of the weights.
        fingerprint: further values that must match on resume.
        folder: folder of the model, which may contain a CLIP for evaluation.
    """

    student: Student
    config: GeneratorConfig
    teachers: Sequence[Teacher]
    draw: Draw
    settings: Settings
    autocast: torch.dtype | None
    fingerprint: dict[str, Any]
    folder: Path


def check_fit(run_config: FinetuneConfig, domain: Domain, model: str) -> None:
    """Check that a model supports the teachers and the kind of prompts of a run.

    Args:
        domain: the model's domain.
        model: name of the model in messages.

    Raises:
        UserError: if it does not.
    """
    if domain.vocabulary is not None and run_config.corpus:
        raise UserError(
            f"The {domain.label} model {model} cannot be trained on a corpus: give its prompts as a list."
        )
    known = domain.teachers
    unknown = [name for name in run_config.teachers if name not in known]
    if unknown:
        raise UserError(f"{model} has no teacher {unknown[0]}: choose from {', '.join(known)}.")
    score, chosen = run_config.score, run_config.teachers or known
    unable = [name for name in chosen if score and score not in TEACHERS[name].kinds]
    if unable:
        able = [name for name in known if score in TEACHERS[name].kinds]
        raise UserError(f"The teacher {unable[0]} cannot give {score} scores: choose from {', '.join(able)}.")


def make_student(
    run_config: FinetuneConfig, model_files: ModelFiles, config: GeneratorConfig, context: DistributedContext,
    settings: Settings, frozen: torch.dtype, *, checkpointing: bool = False, text_on_cpu: bool = False,
) -> Student:  # fmt: skip
    """Load the student at the start of a run.

    Args:
        settings: the resolved settings of the run.
        frozen: dtype of frozen weights.
        checkpointing, text_on_cpu: see `load_student`.
    """
    with torch.random.fork_rng(devices=[]):  # new adapters are initialized from torch's global generator
        torch.manual_seed(run_config.seed)
        student = load_student(
            model_files.folder, model_files.base, context.device, frozen=frozen, tuning=run_config.tuning,  # type: ignore[arg-type]
            adapter=run_config.starting_adapter(), checkpointing=checkpointing, text_on_cpu=text_on_cpu,
            config=settings.fitted(config), train_offsets=settings.train_offsets,
            new=run_config.start == NEW_ADAPTER,
        )  # fmt: skip
    if not run_config.embeddings:
        return student
    encoder_id = encoder_mark(model_files.base or model_files.folder)
    return replace(
        student, embed=Embeddings(Path(run_config.embeddings), student.embed, encoder_id, context.device)
    )


def resolve_settings(settings: Settings, run_config: FinetuneConfig, config: GeneratorConfig) -> Settings:
    """Return a recipe with the user's options.

    If a new adapter replaces the model's own (see `load_student`), the schedules start at 0 regardless of
    `run_config.schedule_offset`.

    Raises:
        UserError: if the adapter to start from is not found.
    """
    return replace(
        _tuned(settings, run_config),
        iterations=run_config.iterations,
        batch=run_config.batch,
        steps=run_config.steps or config.steps,
        scored_steps=run_config.scored_steps or None,
        learning_rate=run_config.learning_rate,
        optimizer=run_config.optimizer,  # type: ignore[arg-type]
        teachers={
            name: _with_score(settings.teachers.get(name) or TEACHERS[name].loader().settings, run_config)
            for name in dict.fromkeys((*settings.teachers, *find_domain(config.domain).teachers))
            if name in run_config.teachers or not run_config.teachers
        },
        renderings=run_config.renderings,
        start=str(run_config.starting_adapter() or ""),
        critic_rank=run_config.critic_rank,
        critic_rate=run_config.critic_rate,
        schedule_offset=0.0 if is_new(settings, run_config, config) else run_config.schedule_offset,
        seed=run_config.seed,
    )


def is_new(settings: Settings, run_config: FinetuneConfig, config: GeneratorConfig) -> bool:
    """Return whether a run with a recipe starts with a new adapter instead of a trained one.

    Raises:
        UserError: if the adapter to start from is not found.
    """
    replaces = run_config.tuning == "full" or _tuned(settings, run_config).fitted(config) != config
    return run_config.start == NEW_ADAPTER or (run_config.starting_adapter() is None and replaces)


def _tuned(settings: Settings, run_config: FinetuneConfig) -> Settings:
    return replace(settings, tuning=run_config.tuning, rank=run_config.rank or None)  # type: ignore[arg-type]


def _with_score(settings: TeacherSettings, run_config: FinetuneConfig) -> TeacherSettings:
    """Return a teacher's settings with the options of ASD, and the kind of score that the run asks for."""
    settings = replace(settings, shift_level=run_config.asd_shift_level)  # type: ignore[arg-type]
    if not run_config.score:
        return settings
    return replace(
        settings,
        kind=run_config.score,  # type: ignore[arg-type]
        weighting=run_config.weighting,  # type: ignore[arg-type]
        stride=run_config.ism_stride,
        interval=run_config.ism_interval,
    )


def resume_fingerprint(run_config: FinetuneConfig, model_files: ModelFiles) -> dict[str, Any]:
    """Return values that must match on resume: hashes of the prompts and of the initial adapter."""
    start = run_config.starting_adapter() or model_files.folder / ADAPTER_NAME
    is_used = run_config.start != NEW_ADAPTER and start.is_file()
    digest = hashlib.sha256(start.read_bytes()).hexdigest()[:16] if is_used else ""
    texts = "\n".join((*run_config.prompts, "", run_config.corpus))
    return {"prompts": hashlib.sha256(texts.encode()).hexdigest()[:16], "began with": digest}


def learned_prompts(run_config: FinetuneConfig, folder: Path) -> Sequence[str]:
    """Return the training prompts: the list, or the corpus without held-out prompts."""
    return Corpus(folder / CORPUS) if run_config.corpus else run_config.prompts
