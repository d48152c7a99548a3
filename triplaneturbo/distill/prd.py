"""Progressive Rendering Distillation: a generator learns 3D from the scores of 2D and multi-view teachers.

    one GPU     python -m triplaneturbo finetune --prompts FILE
    eight GPUs  accelerate launch --multi_gpu --num_processes 8 -m triplaneturbo finetune --prompts FILE
    two nodes   accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank RANK
                    --main_process_ip ADDRESS --main_process_port 29500
                    -m triplaneturbo finetune --prompts FILE
                (one line, on both machines: RANK is 0 on the machine at ADDRESS and 1 on the other; both must
                see the folder of the run)

Algorithm 1 of the paper (arXiv 2503.21694, section 3.2). For each of K steps from noise to latents: add noise
to the detached previous estimate; predict clean latents with the U-Net; decode them to triplanes and render
four views; compute the score distillation gradient of every teacher (ASD); accumulate the gradients with
weight 1 / K. Then the optimizer updates the adapters once. No gradient flows from step to step, so memory is
that of a single step.

The training loop is in trainer.py, the options in settings.py, the loss of triplanes in losses.py and the
format of checkpoints in checkpoints.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from triplaneturbo.distill import trainer as trainer_module
from triplaneturbo.distill.critic import LoraCritic, build_critics
from triplaneturbo.distill.loss_scaling import NO_SCALING, LossScaler
from triplaneturbo.distill.losses import rendering_loss
from triplaneturbo.distill.settings import Settings
from triplaneturbo.distill.trainer import Place
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.schedule import clean_estimate, noise_estimate, shifted_timesteps
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.upsample import clear_phase_kernels
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.random_streams import streams

# (random numbers, batch size, K, place) -> for each of K steps, a batch of scenes with the same captions. The
# random numbers are the same in all processes: anything that differs between scenes is drawn for all
# `count * place.size` scenes of the iteration, and the slice `place.own(count)` is returned. The run is
# therefore independent of the number of processes.
Draw = Callable[[np.random.Generator, int, int, Place], list[SceneBatch]]


@dataclass(frozen=True)
class Student:
    """The trained model: a generator, its adapters (mergeable for speed), and its text encoder."""

    generator: TriplaneGenerator
    merged_lora: MergedLora
    embed: Callable[[list[str]], Tensor]


class ProgressiveRenderingDistillation:
    """PRD as a `trainer.Method`: the generator's adapters, trained by Algorithm 1.

    Args:
        student: the trained model.
        teachers: teachers with an entry in `settings.teachers` are used.
        draw: draws captions, cameras and backgrounds.
        settings: options of the run.
        autocast: autocast precision of the U-Net and the decoder; None for the precision of the weights.

    Raises:
        ValueError: see `build_critics`.
    """

    def __init__(
        self,
        student: Student,
        teachers: Sequence[Teacher],
        draw: Draw,
        settings: Settings,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.student, self.teachers, self.draw = student, teachers, draw
        self.settings, self.autocast = settings, autocast
        self.critics: Mapping[str, LoraCritic] = build_critics(teachers, settings)
        self.dtype = student.generator.dtype

    def parameters(self) -> dict[str, nn.Parameter]:
        """See `Method`."""
        return {name: p for name, p in self.student.generator.named_parameters() if p.requires_grad}

    def step(self, place: Place, scaler: LossScaler) -> dict[str, float]:
        """See `Method` and `accumulate_gradients`."""
        return accumulate_gradients(
            self.student, self.teachers, self.draw, self.settings, place, self.autocast, self.critics, scaler
        )

    def weights_replaced(self) -> None:
        """See `Method`: resampling kernels are cached by the address of the weights."""
        clear_phase_kernels(self.student.generator)


def accumulate_gradients(
    student: Student,
    teachers: Sequence[Teacher],
    draw: Draw,
    settings: Settings,
    place: Place,
    autocast: torch.dtype | None,
    critics: Mapping[str, LoraCritic] | None = None,
    scaler: LossScaler = NO_SCALING,
) -> dict[str, float]:
    """Accumulate the gradients of one PRD iteration in the student's parameters.

    Random numbers depend on the seed and the iteration alone: some are shared by all scenes, the others
    belong to a scene, whichever process computes it.

    Args:
        autocast: autocast precision of the U-Net and the decoder; None for the precision of the weights.
        critics: critics by teacher name; their gradients are accumulated, too.
        scaler: multiplies the loss; gradients keep the factor.

    Returns:
        Losses to log, by part.
    """
    generator, device = student.generator, student.generator.device
    seed = (settings.seed, place.iteration)
    shared_rng, scene_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    own = place.own(settings.batch)
    rng = streams(seed, range(own.start, own.stop))
    scenes = draw(scene_rng, settings.batch, settings.steps, place)
    text_embeddings = student.embed(scenes[0].prompts)
    latents = generator.draw_latents(settings.batch, rng)
    scored = list(range(settings.steps))
    if settings.scored_steps is not None:
        scored = sorted(int(step) for step in shared_rng.permutation(settings.steps)[: settings.scored_steps])
    log: dict[str, float] = {}
    student.merged_lora.merge()
    try:
        for step, t in enumerate(shifted_timesteps(generator.scheduler, settings.steps)[: scored[-1] + 1]):
            alpha_bar = generator.scheduler.alphas_cumprod[t]
            if step == 0 or settings.noise == "fresh":
                noise = generator.draw_latents(settings.batch, rng)
            noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
            if step == 0:
                initial = noisy
                variants = generator.choose_variants(initial) if generator.config.variants > 1 else None
            is_scored = step in scored
            precision = torch.autocast(device.type, autocast or torch.float32, enabled=autocast is not None)
            with precision, torch.set_grad_enabled(is_scored):
                output = generator.predict(noisy, t, generator.with_variants(text_embeddings, initial))
                clean = clean_estimate(generator.scheduler, output.float(), noisy, t)
                planes = generator.decode(clean) if is_scored else None  # [B, 6, C, H, W]
            if planes is not None:
                loss = rendering_loss(
                    generator, planes.float(), teachers, replace(scenes[step], variants=variants), settings,
                    settings.progress_at(place.iteration), shared_rng, rng, log, critics,
                )  # fmt: skip
                scaler.scale(loss / len(scored)).backward()
            latents = clean.detach()
            if settings.noise == "ddim":
                noise = noise_estimate(generator.scheduler, noisy, latents, t)
    finally:
        student.merged_lora.unmerge()
    return {key: value / len(scored) for key, value in log.items()}


class Trainer(trainer_module.Trainer):
    """A PRD run; see `trainer.Trainer` for its attributes and errors.

    Args:
        context, settings, folder, save_every, fingerprint: see `trainer.Trainer`.
        student, teachers, draw, autocast: see `ProgressiveRenderingDistillation`.
    """

    def __init__(
        self,
        context: DistributedContext,
        student: Student,
        teachers: Sequence[Teacher],
        draw: Draw,
        settings: Settings,
        folder: Path,
        *,
        autocast: torch.dtype | None = None,
        save_every: int = 50,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.student = student
        method = ProgressiveRenderingDistillation(student, teachers, draw, settings, autocast)
        super().__init__(context, method, settings, folder, save_every=save_every, fingerprint=fingerprint)


def train(
    context: DistributedContext,
    student: Student,
    teachers: Sequence[Teacher],
    draw: Draw,
    settings: Settings,
    folder: Path,
    *,
    save_every: int = 50,
    autocast: torch.dtype | None = None,
    progress: Callable[[Trainer], None] | None = None,
    until: float = math.inf,
) -> bool:
    """Run or resume training; return whether the run is finished.

    Args:
        progress: called in the main process after each checkpoint, and at once if the run is already
            finished.
        until: save a checkpoint and stop at this time (`time.monotonic` of the main process).
        context, student, teachers, draw, settings, folder, save_every, autocast: see `Trainer`.

    Raises:
        UserError: see `Trainer` and `Trainer.step`.
    """
    trainer = Trainer(
        context, student, teachers, draw, settings, folder, autocast=autocast, save_every=save_every
    )
    report = progress if context.is_main_process and progress is not None else lambda _: None
    if context.is_main_process:
        print(*trainer.notes, sep="\n", end="\n" * bool(trainer.notes), flush=True)
    if trainer.finished:
        report(trainer)  # the process may have been killed after the last checkpoint
    while not trainer.finished:
        trainer.step()
        timed_out = context.any(context.is_main_process and time.monotonic() > until)
        if timed_out:
            trainer.save()
        if trainer.saved == trainer.iteration:
            report(trainer)
            context.wait()
        if timed_out:
            return trainer.finished
    return True
