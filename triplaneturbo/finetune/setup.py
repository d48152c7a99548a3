"""What a run learns from: the student, its teachers, what is drawn of the prompts, the trainer's settings.

A model of the small world is taught by the world's closed forms (world_lesson.py), the full one by MVDream,
RichDreamer and Stable Diffusion (full_lesson.py).
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
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import TEACHERS, FinetuneConfig
from triplaneturbo.models.adapter import ADAPTER_NAME
from triplaneturbo.models.adapters import adapter
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.utils.devices import bfloat16_unit
from triplaneturbo.utils.distributed import DistributedContext

CORPUS = "corpus"  # the folder of a run's own cleaned copy of its corpus


@dataclass(frozen=True)
class TrainingSetup:
    """All that a trainer is given.

    Attributes:
        config: of the student's model.
        autocast: precision of the U-Net and the decoder; None: that of their weights.
        mark: plain values that a run must have again to be gone on with.
        folder: of the model, where a CLIP that judges may lie.
    """

    student: Student
    config: GeneratorConfig
    teachers: Sequence[Teacher]
    draw: Draw
    settings: Settings
    autocast: torch.dtype | None
    mark: dict[str, Any]
    folder: Path


def check_fit(order: FinetuneConfig, world: bool, model: str) -> None:
    """Nothing, if the model has the teachers that are asked for, and can learn from so many prompts.

    Args:
        world: whether the model is one of the small world.
        model: what to call it.

    Raises:
        UserError: it has not, or cannot.
    """
    if world and order.corpus:
        raise UserError(
            f"The model {model} knows a small world: give its prompts as a list, not as a corpus."
        )
    wrong = [name for name in order.teachers if name not in TEACHERS[world]]
    if wrong:
        raise UserError(f"{model} has no teacher {wrong[0]}: choose from {', '.join(TEACHERS[world])}.")


def make_student(
    order: FinetuneConfig, found: ModelFiles, config: GeneratorConfig, team: DistributedContext,
    frozen: torch.dtype, *, checkpointing: bool = False, text_on_cpu: bool = False,
) -> Student:  # fmt: skip
    """The student that a run begins with.

    Args:
        frozen: precision of what does not learn.
        checkpointing, texts_aside: see `load_student`.
    """
    start = adapter(order.start) if order.start else None
    asked = resolve_settings(Settings(), order, config, start).fitted(config)
    with torch.random.fork_rng(devices=[]):  # a new adapter is drawn from torch's seed
        torch.manual_seed(order.seed)
        student = load_student(
            found.folder, found.base, team.device, frozen=frozen, tuning=order.tuning,  # type: ignore[arg-type]
            adapter=start, checkpointing=checkpointing, text_on_cpu=text_on_cpu, config=asked,
        )  # fmt: skip
    if not order.embeddings:
        return student
    mark = encoder_mark(found.base or found.folder)
    return replace(student, embed=Embeddings(Path(order.embeddings), student.embed, mark, team.device))


def resolve_settings(
    settings: Settings, order: FinetuneConfig, config: GeneratorConfig, start: Path | None
) -> Settings:
    """A recipe with what the user asks for; `start`: the adapter that is begun with, None: the model's.

    Where a new adapter takes the place of the model's own one (`load_student`), nothing of the schedules lies
    behind it, whatever the order says.
    """
    tuned = replace(settings, tuning=order.tuning, rank=order.rank or None)  # type: ignore[arg-type]
    anew = start is None and (order.tuning == "full" or tuned.fitted(config) != config)
    return replace(
        tuned,
        iterations=order.iterations,
        batch=order.batch,
        steps=order.steps or config.steps,
        scored=order.scored or None,
        rate=order.rate,
        optimizer=order.optimizer,  # type: ignore[arg-type]
        teachers={
            name: how
            for name, how in settings.teachers.items()
            if name in order.teachers or not order.teachers
        },
        renderings=order.renderings,
        start=str(start or ""),
        begun=0.0 if anew else order.begun,
        seed=order.seed,
    )


def resume_fingerprint(order: FinetuneConfig, found: ModelFiles) -> dict[str, Any]:
    """What a run must have again to be gone on with: its prompts, and what it began with."""
    start = adapter(order.start) if order.start else found.folder / ADAPTER_NAME
    digest = hashlib.sha256(start.read_bytes()).hexdigest()[:16] if start.is_file() else ""
    texts = "\n".join((*order.prompts, "", order.corpus))
    return {"prompts": hashlib.sha256(texts.encode()).hexdigest()[:16], "began with": digest}


def precision(device: torch.device) -> torch.dtype | None:
    """What the U-Net and the decoder are computed in; None: in their weights' own precision."""
    return torch.bfloat16 if device.type == "cuda" or bfloat16_unit() is not None else None


def learned_prompts(order: FinetuneConfig, folder: Path) -> Sequence[str]:
    """The prompts that a run learns: a list, or those of a corpus that are not held out."""
    return Corpus(folder / CORPUS) if order.corpus else order.prompts
