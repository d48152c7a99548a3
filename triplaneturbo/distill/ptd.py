"""Path-Tracing Distillation: refine one asset by the scores of teachers, along a path of score networks.

    python -m triplaneturbo refine "a red mushroom" -o mushroom.glb

Stage 1 forms the path (Algorithm 1): a LoRA of the teacher's U-Net learns to denoise the asset's own
renderings, so that its scores are reliable where the plain teacher's are not. Stage 2 traces the path back
(Algorithm 2): the asset is optimized by score distillation while the LoRA is faded out, so that the last
network is the teacher itself:

    w(i) = 1 - ((i - 1) / length)^C, then 0

The score is ISM with the settings of LucidDreamer (arXiv 2311.11284), or any other of scores.py. Teachers
without a U-Net, such as the closed forms, have no path: they are the same in all iterations.

The asset may have any `Representation`. The path is in lora_path.py, the format of checkpoints in
checkpoints.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from triplaneturbo.distill.checkpoints import DECAY, Checkpoints, smoothed_error
from triplaneturbo.distill.critic import LoraCritic, UNetTeacher
from triplaneturbo.distill.lora_path import LoraPath, checkpoint_index, path_weight
from triplaneturbo.distill.reference_view import ReferenceView
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.distill.settings import flatten, interpolate
from triplaneturbo.errors import UserError
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.representations.base import Representation
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.offload import on_device
from triplaneturbo.teachers.settings import Schedule, TeacherSettings
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.random_streams import streams

PathKind = Literal["interpolate", "checkpoints", "none"]
# Draws a prompt, cameras and a background from a generator on the CPU.
Draw = Callable[[torch.Generator], SceneBatch]

ISM = TeacherSettings(kind="ism", guidance=(7.5, 7.5), weighting="level")
"""LucidDreamer's score; its inversion step of 200 is the default, its intervals are in `RefineSettings`."""


@dataclass(frozen=True)
class RefineSettings:
    """Settings of a refinement. Pairs are schedules from the first to the second value.

    Attributes:
        steps: optimizer steps of stage 2.
        teachers: settings by teacher name; teachers without an entry are not used. Of a representation's
            renderings, a teacher scores those that its settings name or, if there are none, all.
        path: "interpolate" (the LoRA is faded out), "checkpoints" (Eq. 7) or "none" (plain distillation).
        path_iterations: iterations of stage 1.
        path_rank, path_rate: rank and learning rate of the LoRA.
        path_exponent: C of w(i).
        path_share: length of the path as a share of the steps: the paper's 1000 of LucidDreamer's 5000.
        path_checkpoints: number of checkpoints of stage 1, for "checkpoints".
        low: smallest timestep.
        high: timesteps are drawn below this; it is linear during the first `high_share` of the run.
        interval: last step of the inversion, in timesteps, for "ism".
        critic_rank, critic_rate: rank and learning rate of the critics of "vsd".
        warmup: steps in which the learning rate rises to its full value, from which it decays on a cosine.
        seed: seed of all random numbers.
    """

    steps: int = 60
    teachers: dict[str, TeacherSettings] = field(default_factory=dict)
    path: PathKind = "interpolate"
    path_iterations: int = 400
    path_rank: int = 4
    path_rate: float = 1e-4
    path_exponent: float = 0.3
    path_share: float = 0.2
    path_checkpoints: int = 8
    low: int = 20
    high: Schedule = (980.0, 500.0)
    high_share: float = 0.3
    interval: Schedule = (100.0, 50.0)
    critic_rank: int = 4
    critic_rate: float = 1e-4
    warmup: int = 3
    seed: int = 0

    def rate_factor(self, step: int) -> float:
        """Return the factor on all learning rates at a step, counted from 0."""
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / (self.warmup + 1)) * cosine

    def score(self, name: str, step: int) -> ScoreSettings:
        """Return the settings of a teacher's score at a step, counted from 0."""
        own, progress = self.teachers[name], step / self.steps
        return ScoreSettings.of(
            own,
            progress,
            low=self.low,
            high=int(interpolate(self.high, min(1.0, progress / self.high_share))),
            interval=int(interpolate(self.interval, progress)),
        )


class Refiner:
    """A refinement that is advanced one iteration at a time; in between, the asset may be exported.

    It resumes from the newest intact checkpoint in its folder. Random numbers depend on the seed and the
    iteration alone, so an interrupted and resumed run equals an uninterrupted one bit for bit.

    Args:
        representation: the asset; it is optimized in place.
        teachers: teachers with an entry in `settings.teachers` are used; they stay unchanged.
        draw: draws the scene of an iteration.
        settings: the options.
        folder: folder of the checkpoints; None to keep none.
        save_every: iterations between checkpoints.
        fingerprint: further values that must match on resume, such as the prompt.
        reference: a picture that the asset is to look like, beside the scores.

    Attributes:
        iteration: iterations done, of both stages.
        path_iterations: iterations of stage 1; 0 without a path.
        log: moving averages of the losses.
        notes: messages for the user.

    Raises:
        UserError: checkpoints belong to another run or are all broken, or a teacher cannot give the chosen
            kind of score.
    """

    def __init__(
        self,
        representation: Representation,
        teachers: Sequence[Teacher],
        draw: Draw,
        settings: RefineSettings,
        folder: Path | None = None,
        *,
        save_every: int = 20,
        fingerprint: Mapping[str, Any] | None = None,
        reference: ReferenceView | None = None,
    ) -> None:
        self.reference = reference
        self.representation, self.draw, self.settings = representation, draw, settings
        self.save_every = save_every
        self.teachers = {teacher.name: teacher for teacher in teachers if teacher.name in settings.teachers}
        self.paths: dict[str, LoraPath] = {}
        self.critics: dict[str, LoraCritic] = {}
        for teacher in self.teachers.values():
            if settings.path != "none" and isinstance(teacher, UNetTeacher):
                self.paths[teacher.name] = LoraPath(
                    teacher, settings.path_rank, settings.path_rate, settings.seed
                )
            if settings.teachers[teacher.name].kind == "vsd":
                self.critics[teacher.name] = _critic(teacher, settings)
        self.path_iterations = settings.path_iterations if self.paths else 0
        self.iteration, self.log = 0, dict[str, float]()
        self._saved = -1
        self.notes: list[str] = []
        self._checkpoints = None
        state = None
        if folder is not None:
            values = {**flatten(asdict(settings)), **(fingerprint or {})}
            self._checkpoints = Checkpoints(folder, values)
            state, notes = self._checkpoints.newest()
            self.notes += notes
        if state is not None:
            representation.load_state_dict(state["representation"])
        self.optimizer = torch.optim.AdamW(
            representation.parameters(), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0
        )
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        if state is not None:
            self._resume(state)

    @property
    def steps(self) -> int:
        """Optimizer steps of the asset that are done."""
        return max(0, self.iteration - self.path_iterations)

    @property
    def iterations(self) -> int:
        """Iterations of both stages."""
        return self.path_iterations + self.settings.steps

    @property
    def finished(self) -> bool:
        """Whether all iterations of both stages are done."""
        return self.iteration >= self.iterations

    def step(self) -> dict[str, float]:
        """Do one iteration of stage 1 or 2.

        Returns:
            Losses by part: "path <teacher>" in stage 1, "<teacher> <rendering>" in stage 2; with a reference
            also its errors, see `ReferenceView.losses`.

        Raises:
            UserError: a loss is not finite, in which case the asset stays as it was; or a checkpoint cannot
                be written, in which case the refinement may continue.
            ValueError: all iterations are done.
        """
        if self.finished:
            raise ValueError("all iterations are done")
        forming = self.iteration < self.path_iterations
        rng = streams((self.settings.seed, self.iteration), range(1))[0]
        scenes = self.draw(rng)
        losses = self._form_path(scenes, rng) if forming else self._trace_path(scenes, rng)
        self.iteration += 1
        for key, value in losses.items():
            self.log[key] = self.log.get(key, value) * DECAY + value * (1 - DECAY)
        if self.iteration % self.save_every == 0 or self.finished:
            self.save()
        return losses

    def network(self, name: str) -> Teacher:
        """Return a teacher's score network at the next step of stage 2: that of its path, if it has one.

        It is valid until the next call.
        """
        path, settings = self.paths.get(name), self.settings
        if path is None:
            return self.teachers[name]
        i, length = self.steps + 1, settings.path_share * settings.steps
        if settings.path == "interpolate":
            path.set_weight(path_weight(i, length, settings.path_exponent))
        else:
            path.use_checkpoint(checkpoint_index(i, length, len(path.checkpoints)))
        return path.teacher

    def _form_path(self, scenes: SceneBatch, rng: torch.Generator) -> dict[str, float]:
        """Stage 1: fit the LoRA of each teacher to renderings of the asset."""
        losses = {}
        with torch.no_grad():
            renderings = self.representation.render(scenes, rng).renderings
        for name, path in self.paths.items():
            scored = self._scored(self.teachers[name], renderings)
            choice = int(torch.randint(len(scored), (), generator=rng))
            rendering = list(scored.values())[choice]
            with torch.no_grad():
                z = path.teacher.encode(rendering, scenes, rng)
                condition = path.teacher.condition(rendering, scenes)
            losses[f"path {name}"] = path.fit(z, condition, rng)
            done, count = self.iteration + 1, self.settings.path_checkpoints
            # The k-th of `count` checkpoints is due when k / count of the iterations are done.
            if self.settings.path == "checkpoints" and (
                done * count // self.path_iterations > (done - 1) * count // self.path_iterations
            ):
                path.keep()
        return losses

    def _trace_path(self, scenes: SceneBatch, rng: torch.Generator) -> dict[str, float]:
        """Stage 2: one step of the asset, with the score networks of this point of the path."""
        step = self.steps
        reference = None
        if self.reference is not None:  # first: a representation controls its density by the last renderings
            own = self.representation.render(self.reference.scene(scenes), rng)
            reference = self.reference.losses(own.renderings, scenes.background[0])
        output = self.representation.render(scenes, rng)
        loss, losses = output.regularization, dict[str, float]()
        if reference is not None:
            loss, losses = loss + reference[0], reference[1]
        for name, teacher in self.teachers.items():
            network = self.network(name)
            with on_device(teacher):
                for kind, rendering in self._scored(teacher, output.renderings).items():
                    gradients = score_gradients(
                        network,
                        rendering,
                        scenes,
                        self.settings.score(name, step),
                        rng,
                        self.critics.get(name),
                    )
                    for part, gradient in gradients.by_field.items():
                        loss = loss + (getattr(rendering, part) * gradient).sum()
                    losses[f"{name} {kind}"] = gradients.error
        loss.backward()
        if not all(math.isfinite(value) for value in (float(loss.detach()), *losses.values())):
            self.optimizer.zero_grad()
            raise UserError(
                f"The loss is not finite at step {step + 1}: use fewer teachers or another kind of score. "
                f"The result of {step} steps is kept."
            )
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.settings.rate_factor(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.representation.after_step(self.optimizer, step + 1, (step + 1) / self.settings.steps, rng)
        for critic in self.critics.values():
            critic.step(DistributedContext())
        return losses

    def _scored(self, teacher: Teacher, renderings: Mapping[str, Renderings]) -> dict[str, Renderings]:
        """Return the renderings that a teacher scores, by name.

        Raises:
            UserError: no rendering has the fields that it reads.
        """
        readable = {
            name: rendering
            for name, rendering in renderings.items()
            if all(getattr(rendering, part) is not None for part in teacher.reads)
        }
        if not readable:
            raise UserError(f"The teacher {teacher.name} cannot read the renderings of this representation.")
        preferred = self.settings.teachers[teacher.name].renderings
        return {name: readable[name] for name in readable if name in preferred} or readable

    def save(self) -> None:
        """Write a checkpoint; no-op without a folder, or if this iteration has one.

        Raises:
            UserError: it cannot be written; older ones stay.
        """
        if self._checkpoints is None or self._saved == self.iteration:
            return
        state = {
            "representation": self.representation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "paths": {name: path.state_dict() for name, path in self.paths.items()},
            "critics": {name: critic.state_dict() for name, critic in self.critics.items()},
            "log": self.log,
        }
        self._checkpoints.save(self.iteration, state, smoothed_error(self.log, self.teachers))
        self._saved = self.iteration

    def _resume(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        for name, path in self.paths.items():
            path.load_state_dict(state["paths"][name])
        for name, critic in self.critics.items():
            critic.load_state_dict(state["critics"][name])
        self.iteration = self._saved = state["iteration"]
        self.log = dict(state["log"])


def _critic(teacher: Teacher, settings: RefineSettings) -> LoraCritic:
    if not isinstance(teacher, UNetTeacher):
        raise UserError(f"The teacher {teacher.name} has no network to train for vsd: use another score.")
    with torch.random.fork_rng(devices=[]):  # a LoRA is initialized from torch's global generator
        torch.manual_seed(settings.seed)
        return LoraCritic(teacher, settings.critic_rank, settings.critic_rate)
