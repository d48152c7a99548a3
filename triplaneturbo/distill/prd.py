"""Progressive Rendering Distillation: a generator learns 3D from the scores of 2D and multi-view teachers.

    one GPU     python -m triplaneturbo finetune --prompts FILE
    eight GPUs  accelerate launch --multi_gpu --num_processes 8 -m triplaneturbo finetune --prompts FILE
    two nodes   accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank RANK
                    --main_process_ip ADDRESS --main_process_port 29500
                    -m triplaneturbo finetune --prompts FILE
                (in one line, on both: RANK is 0 on the one at ADDRESS and 1 on the other; both see the
                folder of the run)

Algorithm 1 of the paper (CVPR 2025, section 3.2). For each of K steps from noise to latents: noise is added
to the last, detached estimate; the U-Net gives a clean one; its planes are rendered from four sides; every
teacher says what it would change (ASD); the gradients of the K steps are accumulated with weight 1 / K; then
the adapter takes one optimiser step. No gradient crosses from step to step, so memory is that of one.

This file reads from top to bottom: where a batch is drawn, what one iteration does, the run that is made of
them. What a run can be told stands in settings.py, how planes become a loss in loss.py, and what is left on
disk in checkpoints.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from triplaneturbo.distill.checkpoints import DECAY, Checkpoints, smoothed_error
from triplaneturbo.distill.critic import LoraCritic, build_critics
from triplaneturbo.distill.loss_scaling import NO_SCALING, LossScaler
from triplaneturbo.distill.losses import rendering_loss
from triplaneturbo.distill.optimizer import make_optimizer
from triplaneturbo.distill.settings import Settings, flat
from triplaneturbo.errors import UserError
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.schedule import clean_estimate, shifted_timesteps
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.upsample import forget_kernels
from triplaneturbo.teachers.base import SceneBatch, Teacher
from triplaneturbo.utils.distributed import CollectiveError, DistributedContext, fill_gradients
from triplaneturbo.utils.random_streams import streams


@dataclass(frozen=True)
class Place:
    """Where in a run and in a team a batch is drawn.

    Attributes:
        iteration: how many came before it.
        rank, size: which of how many processes draws it.
    """

    iteration: int = 0
    rank: int = 0
    size: int = 1

    def own(self, count: int) -> slice:
        """Of the `count * size` scenes of an iteration, those `count` that are this process's."""
        return slice(self.rank * count, (self.rank + 1) * count)


# (random numbers, how many scenes, K, where) -> for each of K steps, scenes of the same captions. The
# random numbers are the same in all processes: what differs from scene to scene is drawn for all
# `count * place.size` scenes of the iteration, of which those are given that `place.own(count)` tells. So it
# does not matter how many processes share them.
Draw = Callable[[np.random.Generator, int, int, Place], list[SceneBatch]]


@dataclass(frozen=True)
class Student:
    """What learns: a generator, and how captions become text embeddings."""

    generator: TriplaneGenerator
    folded: MergedLora
    embed: Callable[[list[str]], Tensor]


def iteration(
    student: Student,
    teachers: Sequence[Teacher],
    draw: Draw,
    settings: Settings,
    place: Place,
    autocast: torch.dtype | None,
    critics: Mapping[str, LoraCritic] | None = None,
    scale: LossScaler = NO_SCALING,
) -> dict[str, float]:
    """Accumulate the gradients of one iteration in the student's parameters; returns what to log.

    Random numbers follow from the seed and the iteration alone: some are the same for all scenes, the others
    each scene's own, whichever process it is in.

    Args:
        autocast: precision of the U-Net and the decoder; None: that of their weights.
        critics: of the teachers that have one, by name; their gradients are accumulated, too.
        scale: its factor is on the gradients.
    """
    generator, device = student.generator, student.generator.device
    seed = (settings.seed, place.iteration)
    rng, drawing = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    mine = place.own(settings.batch)
    chance = streams(seed, range(mine.start, mine.stop))
    scenes = draw(drawing, settings.batch, settings.steps, place)
    embeds = student.embed(scenes[0].prompts)
    latents = generator.draw_latents(settings.batch, chance)
    chosen = list(range(settings.steps))
    if settings.scored is not None:
        chosen = sorted(int(step) for step in rng.permutation(settings.steps)[: settings.scored])
    log: dict[str, float] = {}
    student.folded.fold()
    try:
        for step, t in enumerate(shifted_timesteps(generator.scheduler, settings.steps)[: chosen[-1] + 1]):
            kept = generator.scheduler.alphas_cumprod[t]
            fresh = generator.draw_latents(settings.batch, chance)
            noisy = kept.sqrt() * latents + (1 - kept).sqrt() * fresh
            learns = step in chosen
            precision = torch.autocast(device.type, autocast or torch.float32, enabled=autocast is not None)
            with precision, torch.set_grad_enabled(learns):
                output = generator.predict(noisy, t, embeds)
                clean = clean_estimate(generator.scheduler, output.float(), noisy, t)
                planes = generator.decode(clean) if learns else None
            if planes is not None:
                loss = rendering_loss(
                    generator, planes.float(), teachers, scenes[step], settings,
                    settings.progress_at(place.iteration), rng, chance, log, critics,
                )  # fmt: skip
                scale.up(loss / len(chosen)).backward()
            latents = clean.detach()
    finally:
        student.folded.unfold()
    return {key: value / len(chosen) for key, value in log.items()}


class Trainer:
    """A run, one iteration at a time; between two of them the generator may serve anything else.

    It goes on from the newest good checkpoint in the folder, if there is one. Random numbers follow from the
    seed and the iteration, so a run that was killed at any moment and gone on with equals an uninterrupted
    one bit for bit (on one device, in as many processes). Only a lower rate may be given anew.

    Args:
        team: the processes that share the run; all see the same folder, in which the leading one writes.
        student: what learns; all processes begin with the leading one's.
        draw: see `Draw`.
        folder: of the run; checkpoints lie in it (distill/checkpoints.py).
        autocast: see `iteration`.
        save_every: iterations between checkpoints.
        mark: plain values by name (the prompts' hash, say) which a run must have again to be gone on with.

    Attributes:
        iteration: optimiser steps done.
        saved: how many were done when the newest checkpoint was written.
        average: the moving average of what learns, by the parameter's name.
        log: the moving averages of what `step` returns.
        scale: of the loss; it says how many steps were skipped.
        notes: sentences to be told: of checkpoints that were broken.

    Raises:
        UserError: the checkpoints are another run's, or all broken, or cannot be written.
        ValueError: see `make_critics`.
    """

    def __init__(
        self,
        team: DistributedContext,
        student: Student,
        teachers: Sequence[Teacher],
        draw: Draw,
        settings: Settings,
        folder: Path,
        *,
        autocast: torch.dtype | None = None,
        save_every: int = 50,
        mark: Mapping[str, Any] | None = None,
    ) -> None:
        self.team, self.student, self.teachers, self.draw, self.settings = (
            team, student, teachers, draw, settings
        )  # fmt: skip
        self.autocast, self.save_every = autocast, save_every
        self._named = {name: p for name, p in student.generator.named_parameters() if p.requires_grad}
        self._parameters = list(self._named.values())
        self.critics = build_critics(teachers, settings)
        # A critic's pairs are drawn by torch's own generator, and so may be a new adapter's.
        team.take_from_leader(self._parameters)
        for critic in self.critics.values():
            team.take_from_leader(critic.parameters)
        self.optimizer = make_optimizer(settings.optimizer, self._parameters, settings.rate)
        self.average = {name: p.detach().clone() for name, p in self._named.items()}
        self.scale = LossScaler.beside(student.generator.dtype)
        self.iteration, self.saved = 0, -1
        self.log: dict[str, float] = {}
        self._torn = False  # whether an update of the weights was begun and not ended
        # As many scenes an iteration, however many processes share them: the run is the same.
        told = {**flat(asdict(settings)), "batch": settings.batch * team.size, **(mark or {})}
        self.checkpoints = Checkpoints(folder, told)
        self.notes = self._go_on()
        if self.saved < 0:
            self.save()

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration >= self.settings.iterations

    def step(self) -> dict[str, float]:
        """Do one iteration; returns its log by part, in the mean over all scenes of all processes.

        Raises:
            UserError: a loss or the gradient is not finite; the student is that of the last good checkpoint
                then. Or a checkpoint cannot be written; nothing else is lost then.
        """
        if self.finished:
            raise ValueError(f"all {self.settings.iterations} iterations are done")
        place = Place(self.iteration, self.team.rank, self.team.size)
        try:
            parts = iteration(
                self.student,
                self.teachers,
                self.draw,
                self.settings,
                place,
                self.autocast,
                self.critics,
                self.scale,
            )
            fill_gradients(self._parameters)
            self.team.average_gradients(self._parameters)
            learns = self.scale.down(self._parameters)
            log = self.team.means(parts)
            if learns:
                log["gradient"] = float(nn.utils.clip_grad_norm_(self._parameters, self.settings.clip))
            wrong = [part for part, value in log.items() if not math.isfinite(value)]
            if wrong:
                self._refuse(f"The {wrong[0]} is", self.iteration + 1)
            self._update(learns)
        finally:
            # Also after an error: an engine that goes on needs the memory.
            self.optimizer.zero_grad()
            for critic in self.critics.values():
                critic.optimizer.zero_grad()
        for key, value in log.items():
            self.log[key] = self.log.get(key, value) * DECAY + value * (1 - DECAY)
        if self.iteration % self.save_every == 0 or self.finished:
            self.save()
        return log

    def _update(self, learns: bool) -> None:
        """Go on by one iteration, whose gradients count unless they overflowed."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.iteration)
        keep = min(self.settings.average, (self.iteration + 1) / (self.iteration + 10))
        self._torn = True
        if learns:
            self.optimizer.step()
        for critic in self.critics.values():
            critic.step(self.team)
        with torch.no_grad():
            for name, p in self._named.items():
                self.average[name].lerp_(p, 1 - keep)
        self.iteration += 1
        self._torn = False

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this iteration or the weights are torn.

        Raises:
            UserError: it cannot be written (the others stay), or weights are not finite, as in `step`.
        """
        if self._torn or self.saved == self.iteration:
            return
        learned = [*self._parameters, *self.average.values()]
        if not all(bool(torch.isfinite(value).all()) for value in learned):
            self._refuse("What was learned is", self.iteration)
        state = {
            "weights": {name: p.detach() for name, p in self._named.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "critics": {name: critic.state() for name, critic in self.critics.items()},
            "scale": self.scale.state(),
            "log": self.log,
        }
        failed: UserError | None = None
        if self.team.is_main_process:
            try:
                self.checkpoints.save(self.iteration, state, smoothed_error(self.log, self.settings.teachers))
            except UserError as error:
                failed = error
        if self.team.any(failed is not None):  # all stop together
            raise failed or CollectiveError("The leading process could not write a checkpoint.")
        self.saved = self.iteration

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While it is entered, the generator has the averaged weights."""
        own = {name: p.detach().clone() for name, p in self._named.items()}
        self._take(self.average)
        try:
            yield
        finally:
            self._take(own)

    @torch.no_grad()
    def _take(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self._named.items():
            p.copy_(weights[name])
        forget_kernels(self.student.generator)  # of weights that lay where these lie

    def _go_on(self) -> list[str]:
        """Be what the newest checkpoint says; returns what is to be told."""
        state, notes = self.checkpoints.newest()
        if state is not None:
            self._take(state["weights"])
            for name, value in self.average.items():
                value.copy_(state["average"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, critic in self.critics.items():
                critic.load(state["critics"][name])
            self.iteration = self.saved = state["iteration"]
            self.scale.load(state["scale"])
            self.log, self._torn = dict(state["log"]), False
        same = float(self.team.mean(torch.tensor(float(self.saved)))) == self.saved
        if self.team.any(not same):
            raise CollectiveError(
                f"The processes do not find the same checkpoints in {self.checkpoints.folder}: give a folder "
                f"that all machines share."
            )
        return notes

    def _refuse(self, what: str, iteration: int) -> NoReturn:
        """Go back to the last good checkpoint and say that something was not finite in an iteration."""
        if self.saved == self.iteration:
            # Nothing that follows from that one is finite.
            if self.team.is_main_process:
                self.checkpoints.drop(self.saved)
            self.team.wait()
        self._go_on()
        raise CollectiveError(
            f"{what} not finite at iteration {iteration}: give a lower rate than {self.settings.rate:g}, and "
            f"the run goes on from iteration {self.iteration}, the last good one."
        )


def train(
    team: DistributedContext,
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
    """Run or go on with a run to its end. Returns whether it is finished.

    Args:
        progress: called by the leading process whenever a checkpoint was written, and where the run is
            finished already.
        until: stop with a checkpoint at this time (`time.monotonic`), by the leading process's clock.
        team, student, teachers, draw, settings, folder, save_every, autocast: see `Trainer`.

    Raises:
        UserError: see `Trainer` and `Trainer.step`.
    """
    trainer = Trainer(
        team, student, teachers, draw, settings, folder, autocast=autocast, save_every=save_every
    )
    told = progress if team.is_main_process and progress is not None else lambda _: None
    if team.is_main_process:
        print(*trainer.notes, sep="\n", end="\n" * bool(trainer.notes), flush=True)
    if trainer.finished:
        told(trainer)  # it may have been killed before it came to that
    while not trainer.finished:
        trainer.step()
        over = team.any(team.is_main_process and time.monotonic() > until)
        if over:
            trainer.save()
        if trainer.saved == trainer.iteration:
            told(trainer)
            team.wait()
        if over:
            return trainer.finished
    return True
