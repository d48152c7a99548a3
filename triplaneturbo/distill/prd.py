"""Progressive Rendering Distillation: a generator learns 3D from the scores of 2D and multi-view teachers.

    python -m triplaneturbo.world train --folder runs/small            the built-in model, from nothing

Algorithm 1 of the paper (CVPR 2025, section 3.2). For each of K steps from noise to latents: noise is added
to the last, detached estimate; the U-Net gives a clean one; its planes are rendered from four sides; every
teacher says what it would change (ASD); the gradients of the K steps are accumulated with weight 1 / K; then
the adapter takes one optimiser step. No gradient crosses from step to step, so memory is that of one.

This file reads from top to bottom: settings, what one iteration does, the loop with its checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from triplaneturbo.checkpoint import load_state, save_state
from triplaneturbo.distill.critic import LoraCritic, Networked
from triplaneturbo.distill.optimizer import OptimizerName, make_optimizer
from triplaneturbo.distill.rendering import surface, volume
from triplaneturbo.distill.scores import Kind, ScoreSettings, score_gradients
from triplaneturbo.errors import UserError
from triplaneturbo.generator.folded import Folded
from triplaneturbo.generator.generator import Generator
from triplaneturbo.generator.schedule import clean_estimate, shifted_timesteps
from triplaneturbo.parallel import Team, fill_gradients
from triplaneturbo.teachers.base import Scenes, Seen, Teacher

Tuning = Literal["peta", "lora", "full"]
Span = tuple[float, float]  # a value at the beginning and at the end of a run, linear between


@dataclass(frozen=True)
class TeacherSettings:
    """How a teacher is listened to.

    Attributes:
        kind: how its opinion becomes a gradient; see `ScoreSettings`.
        weight: factor on its gradients.
        guidance: scale of classifier-free guidance, from the beginning to the end of a run.
        shift: ASD's eta.
        renderings: which of the two it is shown.
        share: of the steps at which it is asked; its gradients then count for the others, too.
        clean_weight, sum_scenes: see `ScoreSettings`.
    """

    kind: Kind = "asd"
    weight: float = 1.0
    guidance: Span = (1.0, 1.0)
    shift: float = 0.1
    renderings: tuple[str, ...] = ("volume", "surface")
    share: float = 1.0
    clean_weight: bool = False
    sum_scenes: bool = False


@dataclass(frozen=True)
class Settings:
    """A run. Values that are pairs go linearly from the first to the second over its schedules.

    Attributes:
        iterations: optimiser steps.
        batch: prompts an iteration and process.
        steps: K.
        scored: how many of an iteration's K steps are rendered and scored, drawn anew each time; the others
            are only walked through. The gradient is the same on average, and a caption costs less: more
            captions an hour. None: all of them, as in Algorithm 1.
        rate: learning rate, the highest; see `anneal`.
        optimizer: "adamw", "soap" or "adan"; see `make_optimizer`.
        teachers: by name; a teacher without an entry is off.
        renderings: "volume", "surface" or both.
        size: side of the images; the volume shows every `stride`-th of their pixels along both sides, the
            surface every `surface_stride`-th, another set at each step.
        nodes: of the sdf lattice along each side.
        sharpness: of the volume rendering.
        low: lowest timestep that teachers are asked at; high: one more than the highest.
        color_shrink: factor on the colours' gradient from the volume rendering.
        eikonal, sparsity: weights of the regularisers.
        tuning: what learns: PETA's adapters, basic LoRA's, or the whole base.
        critic_rank, critic_rate: rank and learning rate of the critic of each teacher whose kind is "vsd".
        anneal: whether the rate rises over the first 25 iterations and then falls to a twentieth, as a
            cosine.
        clip: the largest norm of the gradient; inf: any.
        average: decay of the moving average of the adapter, which is what is kept in the end.
        start: a mark of the trained adapter that the run begins with; "": it begins with a new one.
        begun: how much of the schedules (not of the rate's) lies behind that one: 0 to 1.
    """

    iterations: int = 2000
    batch: int = 4
    steps: int = 4
    scored: int | None = None
    rate: float = 2e-4
    optimizer: OptimizerName = "adamw"
    teachers: dict[str, TeacherSettings] = field(default_factory=dict)
    renderings: tuple[str, ...] = ("volume", "surface")
    size: int = 512
    stride: int = 4
    surface_stride: int = 1
    nodes: int = 128
    sharpness: Span = (100.0, 100.0)
    low: Span = (500.0, 20.0)
    high: int = 980
    color_shrink: Span = (1.0, 0.01)
    eikonal: Span = (1.0, 0.0)
    sparsity: Span = (1.0, 0.0)
    average: float = 0.995
    tuning: Tuning = "peta"
    critic_rank: int = 4
    critic_rate: float = 1e-4
    anneal: bool = True
    clip: float = 1.0
    seed: int = 0
    start: str = ""
    begun: float = 0.0


# (random numbers, how many, K) -> captions and K lists of scenes to look at them in.
Draw = Callable[[np.random.Generator, int, int], list[Scenes]]


@dataclass(frozen=True)
class Student:
    """What learns: a generator, and how captions become text embeddings."""

    generator: Generator
    folded: Folded
    embed: Callable[[list[str]], Tensor]


def iteration(
    student: Student,
    teachers: Sequence[Teacher],
    draw: Draw,
    settings: Settings,
    progress: float,
    seed: tuple[int, ...],
    autocast: torch.dtype | None,
    critics: Mapping[str, LoraCritic] | None = None,
) -> dict[str, float]:
    """Accumulate the gradients of one iteration in the student's parameters; returns what to log.

    Args:
        progress: how much of the run is done, 0 to 1; the schedules follow it.
        seed: all random numbers of the iteration follow from it.
        autocast: precision of the U-Net and the decoder; None: that of their weights.
        critics: of the teachers that have one, by name; their gradients are accumulated, too.
    """
    generator, device = student.generator, student.generator.device
    rng = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    scenes = draw(rng, settings.batch, settings.steps)
    embeds = student.embed(scenes[0].prompts)
    latents = generator.draw_latents(settings.batch, noise)
    chosen = list(range(settings.steps))
    if settings.scored is not None:
        chosen = sorted(int(step) for step in rng.permutation(settings.steps)[: settings.scored])
    log: dict[str, float] = {}
    student.folded.fold()
    for step, t in enumerate(shifted_timesteps(generator.scheduler, settings.steps)[: chosen[-1] + 1]):
        kept = generator.scheduler.alphas_cumprod[t]
        fresh = generator.draw_latents(settings.batch, noise)
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * fresh
        learns = step in chosen
        precision = torch.autocast(device.type, autocast or torch.float32, enabled=autocast is not None)
        with precision, torch.set_grad_enabled(learns):
            output = generator.predict(noisy, t, embeds)
            clean = clean_estimate(generator.scheduler, output.float(), noisy, t)
            planes = generator.decode(clean) if learns else None
        if planes is not None:
            loss = rendering_loss(
                generator, planes.float(), teachers, scenes[step], settings, progress, rng, noise, log,
                critics,
            )  # fmt: skip
            (loss / len(chosen)).backward()
        latents = clean.detach()
    student.folded.unfold()
    return {key: value / len(chosen) for key, value in log.items()}


def rendering_loss(
    generator: Generator,
    planes: Tensor,
    teachers: Sequence[Teacher],
    scenes: Scenes,
    settings: Settings,
    progress: float,
    rng: np.random.Generator,
    noise: torch.Generator,
    log: dict[str, float],
    critics: Mapping[str, LoraCritic] | None = None,
) -> Tensor:
    """Render planes [B, 6, C, H, W] both ways and ask the teachers; a scalar whose gradient is theirs."""

    def now(span: Span) -> float:
        return between(span, progress)

    fields = generator.heads[generator.active].fields
    first, other = (
        (int(rng.integers(stride)), int(rng.integers(stride)))
        for stride in (settings.stride, settings.surface_stride)
    )
    # The lattice's size varies, so that the field is learned between nodes and in the corners, too.
    half = float(rng.uniform(0.86, 1.0))
    view = volume(fields, planes, scenes, size=settings.size, stride=settings.stride, first=first,
                  nodes=settings.nodes, half=half, sharpness=now(settings.sharpness),
                  color_shrink=now(settings.color_shrink), jitter=noise)  # fmt: skip
    shown: dict[str, Seen] = {}
    if "volume" in settings.renderings:
        shown["volume"] = view.seen
    if "surface" in settings.renderings:
        shown["surface"] = surface(
            fields, planes, scenes, view.sdf, half, settings.size, settings.surface_stride, other
        )
    loss = now(settings.eikonal) * view.eikonal + now(settings.sparsity) * view.sparsity
    for key, value in (("eikonal", view.eikonal), ("opacity", view.seen.opacity.mean())):
        log[key] = log.get(key, 0.0) + float(value.detach())
    for teacher in teachers:
        how = settings.teachers.get(teacher.name)
        if how is None or rng.random() >= how.share:
            continue
        for name, seen in shown.items():
            if name not in how.renderings or any(getattr(seen, part) is None for part in teacher.reads):
                continue
            score = ScoreSettings(kind=how.kind, guidance=now(how.guidance), shift=how.shift,
                                  low=int(now(settings.low)), high=settings.high,
                                  weight=how.weight / how.share, clean_weight=how.clean_weight,
                                  sum_scenes=how.sum_scenes)  # fmt: skip
            critic = critics.get(teacher.name) if critics else None
            gradients = score_gradients(teacher, seen, scenes, score, noise, critic)
            for where, gradient in gradients.by_field.items():
                loss = loss + (getattr(seen, where) * gradient).sum()
            key = f"{teacher.name} {name}"
            log[key] = log.get(key, 0.0) + gradients.error
    return loss


def between(span: Span, progress: float) -> float:
    """A scheduled value when `progress` of the run, 0 to 1, is done."""
    return span[0] + (span[1] - span[0]) * progress


def train(
    team: Team,
    student: Student,
    teachers: Sequence[Teacher],
    draw: Draw,
    settings: Settings,
    folder: Path,
    *,
    save_every: int = 50,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, dict[str, float], dict[str, Tensor]], None] | None = None,
    until: float = math.inf,
) -> bool:
    """Run or go on with a run; its state is `folder/train.pt`. Returns whether it is finished.

    Random numbers follow from the seed, the iteration and the process alone, so a run that was killed and
    gone on with equals an uninterrupted one bit for bit (on one device).

    Args:
        save_every: iterations between states.
        progress: called by the leading process whenever a state was saved, and where the run is finished
            already, with the iteration, the log and the averaged weights by the parameter's name.
        until: stop with a state saved at this time (`time.monotonic`).

    Raises:
        UserError: the state belongs to another run, cannot be written, or a loss is not finite.
    """
    path = folder / "train.pt"
    names = {name: p for name, p in student.generator.named_parameters() if p.requires_grad}
    parameters = list(names.values())
    optimizer = make_optimizer(settings.optimizer, parameters, settings.rate)
    average = {name: p.detach().clone() for name, p in names.items()}
    critics = make_critics(teachers, settings)
    told = {**flat(asdict(settings)), "processes": team.size}
    done, log = 0, {}
    state = load_state(path, told)
    if state is not None:
        for name, p in names.items():
            p.data.copy_(state["weights"][name])
            average[name].copy_(state["average"][name])
        optimizer.load_state_dict(state["optimizer"])
        for name, critic in critics.items():
            critic.load(state["critics"][name])
        done, log = state["iteration"], state["log"]
    if done == settings.iterations and team.leads and progress is not None:
        progress(done, log, average)  # it may have been killed before it came to that
    for i in range(done, settings.iterations):
        along = i / settings.iterations
        shape = min(1, (i + 1) / 25) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * along)))
        rate = settings.rate * (shape if settings.anneal else 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        progressed = settings.begun + (1 - settings.begun) * along
        seed = (settings.seed, i, team.rank)
        parts = iteration(student, teachers, draw, settings, progressed, seed, autocast, critics)
        fill_gradients(parameters)
        team.average_gradients(parameters)
        size = float(nn.utils.clip_grad_norm_(parameters, settings.clip))
        if not math.isfinite(size):
            raise UserError(
                f"The gradient is not finite at iteration {i + 1}: go on from {path} with a lower rate."
            )
        optimizer.step()
        optimizer.zero_grad()
        for critic in critics.values():
            critic.step(team)
        keep = min(settings.average, (i + 1) / (i + 10))
        with torch.no_grad():
            for name, p in names.items():
                average[name].lerp_(p, 1 - keep)
        for key, value in {**parts, "gradient": size}.items():
            log[key] = log.get(key, value) * 0.95 + value * 0.05
        # All processes stop at the same iteration: the leading one's clock counts.
        stop = bool(team.mean(torch.tensor(float(team.leads and time.monotonic() > until))) > 0)
        if (i + 1) % save_every == 0 or i + 1 == settings.iterations or stop:
            if team.leads:
                state = {
                    "settings": told,
                    "iteration": i + 1,
                    "weights": {name: p.detach() for name, p in names.items()},
                    "average": average,
                    "optimizer": optimizer.state_dict(),
                    "critics": {name: critic.state() for name, critic in critics.items()},
                    "log": log,
                }
                save_state(path, state)
                if progress is not None:
                    progress(i + 1, log, average)
            team.wait()
        if stop:
            return False
    return True


def make_critics(teachers: Sequence[Teacher], settings: Settings) -> dict[str, LoraCritic]:
    """A critic for each teacher that is to be listened to by "vsd".

    Raises:
        ValueError: it is no network, and so cannot have one.
    """
    critics = {}
    for teacher in teachers:
        how = settings.teachers.get(teacher.name)
        if how is None or how.kind != "vsd":
            continue
        if not isinstance(teacher, Networked):
            raise ValueError(f"{teacher.name} is no network, so vsd cannot train a critic beside it")
        critics[teacher.name] = LoraCritic(teacher, settings.critic_rank, settings.critic_rate)
    return critics


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary of plain values, "teachers.rgb.weight" and the like."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out
