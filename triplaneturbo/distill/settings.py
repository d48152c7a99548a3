"""Settings of a Progressive Rendering Distillation run, including all ablations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from triplaneturbo.distill.optimizer import OptimizerName
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers.settings import Schedule, TeacherSettings

Tuning = Literal["peta", "lora", "full"]
Noise = Literal["fresh", "ddim"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Pairs are schedules, linear from the first to the second value.

    Attributes:
        iterations: optimizer steps.
        batch: prompts per iteration and process.
        steps: number of denoising steps K.
        scored_steps: number of the K steps that are rendered and scored, chosen at random in each iteration;
            the others are only denoised. The expected gradient is the same at a lower cost per caption. None
            for all steps, as in Algorithm 1.
        noise: noise that is added to a step's estimate for the next step: "fresh", as in Algorithm 1, or
            "ddim", that of the sampler (DDIM, eta 0), so that training sees the inputs of generation.
        learning_rate: maximum learning rate; see `anneal`.
        optimizer: "adamw", "soap" or "adan"; see `make_optimizer`.
        teachers: settings by teacher name; teachers without an entry are not used.
        renderings: "volume", "surface" or both.
        size: image size in pixels; the volume rendering has every `stride`-th pixel along both sides, the
            surface rendering every `surface_stride`-th, with a random offset at each step.
        nodes: resolution of the SDF grid along each side.
        sharpness: sharpness of the volume rendering.
        low, high: the teachers' timesteps are drawn from [low, high).
        color_shrink: factor on the gradient of colours in the volume rendering.
        shape_shrink: factor on the gradient of the shape through the surface's normals and depths; 0 to omit
            these.
        train_offsets: train the MLP of the grid offsets, whose gradient comes from the surface's normals and
            depths.
        eikonal, sparsity: weights of the volume rendering's regularizers, which are means over scenes.
        tuning: "peta" (per-plane adapters), "lora" (shared by all planes) or "full" (the whole base).
        rank: rank of all adapters; None for the model's own ranks.
        variants: number of variants of each object; None for the model's own.
        critic_rank, critic_rate: rank and learning rate of the critics of "vsd".
        anneal: warm up over 25 iterations or a tenth of the run, whichever is shorter, then decay to 5% of
            the learning rate on a cosine.
        clip: maximum norm of the gradient; inf to disable clipping.
        average: decay of the moving average of the trained weights, which is what a run saves.
        seed: seed of all random numbers.
        start: identifies the trained adapter that the run starts from; "" for a new adapter.
        schedule_offset: position in the schedules (except that of the learning rate) at the start: 0 to 1.
    """

    iterations: int = 2000
    batch: int = 4
    steps: int = 4
    scored_steps: int | None = None
    noise: Noise = "fresh"
    learning_rate: float = 2e-4
    optimizer: OptimizerName = "adamw"
    teachers: dict[str, TeacherSettings] = field(default_factory=dict)
    renderings: tuple[str, ...] = ("volume", "surface")
    size: int = 512
    stride: int = 4
    surface_stride: int = 1
    nodes: int = 128
    sharpness: Schedule = (100.0, 100.0)
    low: Schedule = (500.0, 20.0)
    high: int = 980
    color_shrink: Schedule = (1.0, 0.01)
    shape_shrink: float = 0.001
    train_offsets: bool = False
    eikonal: Schedule = (1.0, 0.0)
    sparsity: Schedule = (1.0, 0.0)
    average: float = 0.995
    tuning: Tuning = "peta"
    rank: int | None = None
    variants: int | None = None
    critic_rank: int = 4
    critic_rate: float = 1e-4
    anneal: bool = True
    clip: float = 1.0
    seed: int = 0
    start: str = ""
    schedule_offset: float = 0.0

    def rate_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""
        if not self.anneal:
            return self.learning_rate
        warmup = min(1.0, (iteration + 1) / max(1.0, min(25.0, self.iterations / 10)))
        cosine = math.cos(math.pi * iteration / self.iterations)
        return self.learning_rate * warmup * (0.05 + 0.95 * 0.5 * (1 + cosine))

    def progress_at(self, iteration: int) -> float:
        """Return the position of an iteration in the schedules, 0 to 1."""
        return self.schedule_offset + (1 - self.schedule_offset) * iteration / self.iterations

    def fitted(self, config: GeneratorConfig) -> GeneratorConfig:
        """Return a model's configuration with these settings' kind and rank of adapters and variants."""
        config = replace(config, plane_lora=self.tuning != "lora", variants=self.variants or config.variants)
        if self.rank is None:
            return config
        rank = self.rank
        return replace(config, plane_rank=rank, cross_rank=rank, vae_rank=rank, conv_rank=rank)


def interpolate(schedule: Schedule, progress: float) -> float:
    """Return the value of a schedule at `progress`, 0 to 1."""
    return schedule[0] + (schedule[1] - schedule[0]) * progress


def is_default(key: str, value: Any) -> bool:
    """Return whether a flattened setting has its default, which versions without the setting used."""
    options: Any = TeacherSettings() if key.startswith("teachers.") else Settings()
    default = getattr(options, key.rpartition(".")[2], None)
    return value == (list(default) if isinstance(default, tuple) else default)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to plain values with dotted keys such as "teachers.rgb.weight"."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = list(value) if isinstance(value, tuple) else value
    return out
