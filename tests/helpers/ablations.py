"""Small ablations of the toy problem: each run takes a second; and a process that is killed on purpose."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.helpers import toy
from tests.helpers.killing import kill_at_write
from tests.helpers.training_setups import MODEL_FILES
from triplaneturbo.evaluate import ablation_training
from triplaneturbo.evaluate.ablate import ablate
from triplaneturbo.evaluate.ablation_folder import AblationFolder
from triplaneturbo.evaluate.ablation_runs import AblationRun, Budget, make_runs
from triplaneturbo.evaluate.ablation_scores import Figure
from triplaneturbo.evaluate.ablation_tables import TABLES, variants_of
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.utils.distributed import DistributedContext

BUDGET = Budget(iterations=2, batch=1, learning_rate=1e-3, optimizer="adamw", scored_steps=1)
SETTINGS = replace(toy.CHEAP, renderings=("volume", "surface"), surface_stride=4)


class DigestScorer:
    """Scores a run by the size of its adapter, and lists the runs that it was asked for."""

    figures = (Figure("size", "size", decimals=0), Figure("none", "nothing"))
    notes = ("No figure means anything.",)

    def __init__(self, folder: AblationFolder) -> None:
        self.folder, self.scored = folder, []

    def score(self, run: AblationRun, context: DistributedContext) -> dict[str, Any] | None:
        if not context.is_main_process:
            return None
        self.scored.append(run.name)
        size = self.folder.adapter(run).stat().st_size
        return {"figures": {"size": size + run.seed, "none": None}, "results": ["one per mesh"]}

    def baseline(self) -> tuple[str, dict[str, Any]]:
        return "nothing at all", {"size": 0}


def setup_toy(
    config: FinetuneConfig, model_files: ModelFiles, context: DistributedContext, folder: Path
) -> Generator[str, None, TrainingSetup]:
    """Replace `prepare.prepare`: the toy problem with all that a run may change."""
    yield "rendering the toys"
    settings = replace(
        SETTINGS,
        iterations=config.iterations,
        batch=config.batch,
        steps=config.steps,
        scored_steps=config.scored_steps or None,
        learning_rate=config.learning_rate,
        tuning=config.tuning,
        rank=config.rank or None,
        renderings=config.renderings,
        teachers={
            name: own
            for name, own in toy.SETTINGS.teachers.items()
            if name in config.teachers or not config.teachers
        },
        seed=config.seed,
    )
    with torch.random.fork_rng():
        student = toy.student(settings)
    model_config = replace(student.generator.config, domain=TOYWORLD)
    return TrainingSetup(student, model_config, toy.teachers(), toy.draw, settings, None, {}, folder)


def small_ablation(
    folder: Path,
    tables: Sequence[int] = (2,),
    seeds: Sequence[int] = (0,),
    budget: Budget = BUDGET,
    context: DistributedContext | None = None,
) -> tuple[str, DigestScorer]:
    """Run an ablation whose `prepare` was replaced; return the tables and the scorer."""
    ablation = AblationFolder(folder, "toy", budget, toy.CAPTIONS, {"prompts": ["a flat red box"]})
    context = context or DistributedContext()
    if context.is_main_process:
        ablation.claim()
    chosen = [TABLES[number] for number in tables]
    runs = make_runs(variants_of(chosen), seeds, budget, FinetuneConfig("x", toy.CAPTIONS), TOYWORLD)
    scorer = DigestScorer(ablation)
    text = ablate(ablation, chosen, runs, MODEL_FILES, scorer, context, lambda *_: None)
    return text, scorer


def train_together(context: DistributedContext, folder: Path) -> None:
    """Run `small_ablation` in a group of processes; the main process lists what it scored."""
    torch.set_num_threads(1)
    ablation_training.prepare = setup_toy  # type: ignore[assignment]
    _, scorer = small_ablation(folder, context=context)
    if context.is_main_process:
        (folder / "scored.txt").write_text("\n".join(scorer.scored))


def die_at_write(folder: Path, write: int) -> None:
    """Run `small_ablation` in this process, which is killed before a file is complete, counted from 1."""
    torch.set_num_threads(1)
    ablation_training.prepare = setup_toy  # type: ignore[assignment]
    ablation_training._SAVE_EVERY = 1
    kill_at_write(write)
    small_ablation(folder)
