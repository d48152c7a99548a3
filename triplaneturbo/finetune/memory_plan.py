"""Settings, precision and memory plan of full-model training on a device.

The plan lists the memory by part and the cheapest savings that make a run fit:

    print(full_plan(config, model_files, generator_config, device).table())

Savings cost time but never change results. They are applied in order of their cost, and only as needed.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace

import torch

from triplaneturbo.distill import memory
from triplaneturbo.distill.lora_memory import TRAINED, lora_memory
from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import LADDER, MemorySavings, Plan, cheapest_plan, device_overhead
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.duration import UNKNOWN, Estimate
from triplaneturbo.finetune.setup import resolve_settings
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers import mvdream
from triplaneturbo.utils.devices import choose_precision, free_memory
from triplaneturbo.utils.lru_cache import LRUCache
from triplaneturbo.utils.units import GB

_LARGEST = 256  # maximum dimension of SOAP's matrices; see `make_optimizer`
REMEMBERED = 64
COUNTING = Estimate(None, None, "The memory is being estimated.", "estimating")


# (run_config, model_files, config, device) -> plan; see `full_plan`.
PlanRun = Callable[[FinetuneConfig, ModelFiles, GeneratorConfig, torch.device], Plan]


def full_settings(run_config: FinetuneConfig, config: GeneratorConfig, device: torch.device) -> Settings:
    """Return the full model's recipe with the user's options."""
    return resolve_settings(full_recipe(run_config.iterations, device=device.type), run_config, config)


def full_plan(
    run_config: FinetuneConfig, model_files: ModelFiles, config: GeneratorConfig, device: torch.device
) -> Plan:
    """Plan the memory of a full-model run and the savings that make it fit.

    The limit is the free memory of the device or the configured `memory`, whichever is less. A model that is
    already loaded for serving is thereby accounted for.

    Raises:
        UserError: if the run does not fit, the base is incompatible with MVDream, or a value is invalid.
    """
    settings = full_settings(run_config, config, device)
    model_sizes = ModelSizes.read(model_files.folder, model_files.base)
    width, expected = json.loads(model_sizes.unet)["cross_attention_dim"], mvdream.UNET["cross_attention_dim"]
    if "mvdream" in settings.teachers and width != expected:
        raise UserError(
            f"The text embeddings of {model_files.name} have {width} dimensions, but MVDream needs"
            f" {expected}: use a model based on Stable Diffusion 2.1-base, or"
            " leave mvdream out of the teachers."
        )
    limits = [size for size in (free_memory(device), int(run_config.memory * GB)) if size]
    if not limits:
        raise UserError(
            "The amount of free memory is unknown on this system: give it in GB, such as --memory 16."
        )
    return plan(model_sizes, settings, min(limits), device, frozen_dtype(device))


def plan(
    model_sizes: ModelSizes, settings: Settings, available: int, device: torch.device, frozen: torch.dtype
) -> Plan:
    """Plan a run with as few savings as possible.

    Args:
        model_sizes: sizes of the model.
        settings: settings of the run.
        available: available bytes.
        device: device of the training: CUDA needs memory for its context, and offloading to the CPU saves
            nothing on the CPU.
        frozen: dtype of frozen weights.

    Raises:
        UserError: if the run does not fit; the message says how much it needs and what would fit.
    """

    def parts(savings: MemorySavings, settings: Settings = settings) -> dict[str, int]:
        return memory_parts(model_sizes, settings, savings, device, frozen)

    ladder = _steps(settings, device)
    fitting = cheapest_plan(ladder, parts, available, frozen)
    if fitting is not None:
        return fitting
    lighter = {
        "with a batch of 1": replace(settings, batch=1),
        "with adapters instead of full tuning": replace(settings, tuning="peta"),
        **{f"without {name}": _without(settings, name) for name in settings.teachers},
        "with a batch of 1 and adapters": replace(settings, batch=1, tuning="peta"),
    }
    least = sum(parts(ladder[-1]).values())
    advice = next(
        (
            f"it would fit {change}"
            for change, other in lighter.items()
            if other.teachers and other != settings and sum(parts(ladder[-1], other).values()) <= available
        ),
        f"use a device with {least / GB + 0.05:.1f} GB",
    )
    raise UserError(
        f"This run needs {least / GB:.1f} GB with all savings, and the device has {available / GB:.1f} GB:"
        f" {advice}."
    )


def memory_parts(
    model_sizes: ModelSizes, settings: Settings, savings: MemorySavings, device: torch.device,
    frozen: torch.dtype,
) -> dict[str, int]:  # fmt: skip
    """Return the bytes by part at the peak: teacher evaluation or backward pass, whichever is larger."""
    student = memory.student(
        model_sizes, settings.fitted(model_sizes.config), settings.tuning, frozen, savings.checkpointing
    )
    rendered = memory.rendering(model_sizes, settings)
    # Without full tuning, the student's own base is used with the adapters disabled.
    needs_base = settings.tuning == "full" and "sd" in settings.teachers
    teachers, critics, works = {}, 0, [0]
    for name, teacher_settings in settings.teachers.items():
        strides = {"volume": settings.stride, "surface": settings.surface_stride}
        side = settings.size // min(strides[shown] for shown in teacher_settings.renderings)
        teachers[name] = memory.teacher(name, model_sizes, frozen, side, savings.views)
        works.append(teachers[name].working)
        if teacher_settings.kind == "vsd":
            critic = lora_memory(name, model_sizes, frozen, side, settings.critic_rank)
            critics += TRAINED * critic.weights
            # A critic is trained while the encoder's activations wait for the backward pass.
            works.append(teachers[name].held + critic.training)
    # Teachers run one after another, before the backward pass.
    working = max(works) * settings.batch
    held = (student.held + rendered.held) * settings.batch
    backward = settings.batch * max(
        student.held + rendered.backward, max(student.backward, student.held + rendered.held)
    )
    teacher_weights = {name: t.weights for name, t in teachers.items()}
    if savings.offload_teachers:
        working += max(teacher_weights.values(), default=0)  # one teacher at a time is on the device
        teacher_weights = {}
    evaluation = held + working
    parts = {
        "U-Net, frozen": student.unet,
        "VAE, frozen": student.vae,
        "separate base, as a teacher": memory.separate_base(model_sizes, frozen) if needs_base else 0,
        "adapters and heads": student.learning,
        "gradients": student.learning,
        "optimizer state": _optimizer_state(settings, student.shapes),
        "moving average": student.learning,
        "weights with merged adapters": student.merged,
        **{f"{name}: weights": size for name, size in teacher_weights.items()},
        "critics with optimizer": critics,
        "text encoders": 0 if savings.texts else student.text + sum(t.text for t in teachers.values()),
        "student activations": student.held * settings.batch,
        "renderings": rendered.held * settings.batch,
        "teacher activations": working if evaluation >= backward else 0,
        "backward pass": backward - held if backward > evaluation else 0,
    }
    return parts | device_overhead(device, max(evaluation, backward))


def _optimizer_state(settings: Settings, shapes: tuple[tuple[int, ...], ...]) -> int:
    """Return the bytes of the optimizer state for float32 parameters of these shapes."""
    total = 0
    for shape in shapes:
        size = math.prod(shape)
        # Adan: three moments and the previous gradient.
        total += 4 * size if settings.optimizer == "adan" else 2 * size
        if settings.optimizer == "soap":
            # A covariance and its eigenvectors per dimension.
            total += sum(2 * side**2 for side in shape if side <= _LARGEST)
    return 4 * total


def _steps(settings: Settings, device: torch.device) -> tuple[MemorySavings, ...]:
    """Return the applicable savings; teachers that share weights with critics cannot be offloaded."""
    if device.type == "cpu":
        return tuple(dict.fromkeys(replace(step, texts=False, offload_teachers=False) for step in LADDER))
    if any(teacher_settings.kind == "vsd" for teacher_settings in settings.teachers.values()):
        return LADDER[:-1]
    return LADDER


def _without(settings: Settings, name: str) -> Settings:
    teachers = {other: kept for other, kept in settings.teachers.items() if other != name}
    return replace(settings, teachers=teachers)


def frozen_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of frozen weights: float16 with loss scaling on GPUs that are fast in it."""
    return choose_precision("auto", device, small=False).dtype if device.type == "cuda" else torch.float32


class Forecast:
    """Cache of memory estimates, computed in a background thread, about 30 seconds each for the full model.

    Example:
        forecast = Forecast(full_plan, model_files, device)
        forecast.of(config)  # COUNTING at first, the estimate once it is computed

    Args:
        plan: memory plan of the model's domain, such as `full_plan`.
        model_files: files of the model.
        device: device of the training.
    """

    def __init__(self, plan: PlanRun, model_files: ModelFiles, device: torch.device) -> None:
        self._plan, self._model_files, self._device = plan, model_files, device
        self._known: LRUCache[Estimate] = LRUCache(REMEMBERED)
        self._wanted: dict[FinetuneConfig, None] = {}
        self._counting = False
        self._lock = threading.Lock()

    def of(self, config: FinetuneConfig) -> Estimate:
        """Return the estimate of a run, or COUNTING if it is still to be computed; does not block."""
        # Normalize the fields that do not change the memory, so that cache keys match.
        key = replace(config, name="x", prompts=("a",), held_out=(), iterations=1, preview_every=0, seed=0)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                return known
            self._wanted.setdefault(key)
            if not self._counting:
                self._counting = True
                threading.Thread(target=self._count, daemon=True, name="forecast").start()
        return COUNTING

    def _count(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._counting = False
                    return
                # The latest request is the one on screen.
                config, _ = self._wanted.popitem()
            estimate = UNKNOWN
            try:
                estimate = self._estimate(config)
            finally:
                self._known.put(config, estimate)

    def _estimate(self, config: FinetuneConfig) -> Estimate:
        try:
            config.check_values()
            plan = self._plan(
                config, self._model_files, GeneratorConfig.load(self._model_files.folder), self._device
            )
        except UserError as error:
            return Estimate(None, None, str(error), "does not fit")
        return Estimate(None, plan.total, plan.sentence)
