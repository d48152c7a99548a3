"""Memory plan of a run: memory by part, and the cheapest savings that make it fit.

    plan(ModelSizes.read(folder, base), full_recipe(), memory=24 * GB).table()

Savings cost time but never change results. They are applied in order of their cost, and only as needed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial

import torch

from triplaneturbo.distill.memory import estimate
from triplaneturbo.distill.memory.estimate import ModelSizes
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.teachers import full
from triplaneturbo.utils.units import GB

# CUDA context with libraries, and the fraction added to activations for fragmentation and workspaces.
CONTEXT, GAPS = GB * 3 // 4, 0.1
_LARGEST = 256  # maximum dimension of SOAP's matrices; see `make_optimizer`


@dataclass(frozen=True)
class MemorySavings:
    """Memory savings, cheapest first.

    Attributes:
        texts: keep text encoders on the CPU.
        views: teachers encode one view at a time; see `sample_latents`.
        checkpointing: gradient checkpointing; see `TriplaneGenerator.recompute`.
        offload_teachers: teachers move to the device one at a time; see `teachers.offload`.
    """

    texts: bool = False
    views: bool = False
    checkpointing: bool = False
    offload_teachers: bool = False

    @property
    def descriptions(self) -> list[str]:
        """Descriptions for users."""
        descriptions = {
            "texts": "text encoders run on the CPU (1 s per new prompt)",
            "views": "teachers encode one view at a time (a third more encoder time)",
            "checkpointing": "the U-Net and the decoder use gradient checkpointing (a third more time of the"
            " student)",
            "offload_teachers": "teachers are offloaded to CPU memory (1 to 2 s per iteration)",
        }
        return [text for name, text in descriptions.items() if getattr(self, name)]


LADDER = (
    MemorySavings(),
    MemorySavings(texts=True),
    MemorySavings(texts=True, views=True),
    MemorySavings(texts=True, views=True, checkpointing=True),
    MemorySavings(texts=True, views=True, checkpointing=True, offload_teachers=True),
)


@dataclass(frozen=True)
class Plan:
    """The plan of a run that fits.

    Attributes:
        parts: bytes by part at the peak.
        savings: savings that are needed.
        memory: available bytes.
        frozen: dtype of frozen weights.
    """

    parts: dict[str, int]
    savings: MemorySavings
    memory: int
    frozen: torch.dtype

    @property
    def total(self) -> int:
        """Total bytes."""
        return sum(self.parts.values())

    @property
    def sentence(self) -> str:
        """Summary of the memory and the savings."""
        takes = f"The run takes {self.total / GB:.1f} of {self.memory / GB:.1f} GB"
        used = self.savings.descriptions
        if not used:
            return f"{takes} without savings."
        return f"{takes} with these savings: {'; '.join(used)}."

    def table(self) -> str:
        """Table of the parts, followed by the summary."""
        lines = [f"{name:44}{size / GB:8.2f} GB" for name, size in self.parts.items() if size]
        return "\n".join([*lines, f"{'total':44}{self.total / GB:8.2f} GB", self.sentence])


def plan(
    model_sizes: ModelSizes,
    settings: Settings,
    memory: int,
    *,
    frozen: torch.dtype = torch.float16,
    cuda: bool = True,
    serving: bool = True,
    separate_memory: bool = True,
    picture: int = full.SIZE,
) -> Plan:
    """Plan a run with as few savings as possible.

    Args:
        model_sizes: sizes of the model.
        settings: settings of the run.
        memory: available bytes.
        frozen: dtype of frozen weights.
        cuda: whether the device is a CUDA GPU, which needs memory for its context.
        serving: whether a second copy of the model is loaded for generation.
        separate_memory: whether the device's memory is separate from CPU memory; else offloading saves
            nothing.
        picture: image size of the "sd" teacher's VAE encoder.

    Raises:
        UserError: if the run does not fit; the message says how much it needs and what would fit.
    """
    count_parts = partial(_parts, model_sizes, frozen=frozen, cuda=cuda, picture=picture)
    ladder = _steps(settings, separate_memory)

    def fits(savings: MemorySavings, settings: Settings = settings, serving: bool = serving) -> bool:
        return sum(count_parts(settings, savings=savings, serving=serving).values()) <= memory

    for savings in ladder:
        if fits(savings):
            # A costly saving may have made a cheap one unnecessary.
            for name in [field.name for field in fields(savings)]:
                less = replace(savings, **{name: False})
                savings = less if fits(less) else savings
            return Plan(count_parts(settings, savings=savings, serving=serving), savings, memory, frozen)
    least = sum(count_parts(settings, savings=ladder[-1], serving=serving).values())
    one, adapters = replace(settings, batch=1), replace(settings, tuning="peta")
    lighter = {
        "with a batch of 1": (one, serving),
        "with adapters instead of full tuning": (adapters, serving),
        "without a model loaded for generation": (settings, False),
        **{f"without {name}": (_without(settings, name), serving) for name in settings.teachers},
        "with a batch of 1, adapters, and no model loaded for generation": (
            replace(one, tuning="peta"),
            False,
        ),
    }
    advice = next(
        (
            f"it would fit {change}"
            for change, other in lighter.items()
            if other[0].teachers and other != (settings, serving) and fits(ladder[-1], *other)
        ),
        f"use a device with {least / GB + 0.05:.1f} GB",
    )
    raise UserError(
        f"This run needs {least / GB:.1f} GB with all savings, and the device has {memory / GB:.1f} GB:"
        f" {advice}."
    )


def _steps(settings: Settings, separate_memory: bool) -> tuple[MemorySavings, ...]:
    """Return the applicable savings; teachers that share weights with critics cannot be offloaded."""
    if not separate_memory:
        return tuple(dict.fromkeys(replace(step, texts=False, offload_teachers=False) for step in LADDER))
    if any(teacher_settings.kind == "vsd" for teacher_settings in settings.teachers.values()):
        return LADDER[:-1]
    return LADDER


def _without(settings: Settings, name: str) -> Settings:
    teachers = {
        other: teacher_settings for other, teacher_settings in settings.teachers.items() if other != name
    }
    return replace(settings, teachers=teachers)


def _parts(
    model_sizes: ModelSizes, settings: Settings, *, savings: MemorySavings, frozen: torch.dtype, cuda: bool,
    serving: bool, picture: int,
) -> dict[str, int]:  # fmt: skip
    """Return the bytes by part at the peak: teacher evaluation or backward pass, whichever is larger."""
    student = estimate.student(
        model_sizes, settings.fitted(model_sizes.config), settings.tuning, frozen, savings.checkpointing
    )
    rendered = estimate.rendering(model_sizes, estimate.key(settings), settings.renderings)
    # Without full tuning, the student's own base is used with the adapters disabled.
    second = (
        estimate.base(model_sizes, frozen) if settings.tuning == "full" and "sd" in settings.teachers else 0
    )
    teachers = {}
    for name, teacher_settings in settings.teachers.items():
        strides = {"volume": settings.stride, "surface": settings.surface_stride}
        side = settings.size // min(strides[shown] for shown in teacher_settings.renderings)
        teachers[name] = estimate.teacher(name, model_sizes, frozen, side, picture, savings.views)
    # Teachers run one after another, before the backward pass.
    working = max((t.working for t in teachers.values()), default=0) * settings.batch
    held = (student.held + rendered.held) * settings.batch
    backward = settings.batch * max(
        student.held + rendered.backward, max(student.backward, student.held + rendered.held)
    )
    teacher_weights = {name: t.weights for name, t in teachers.items()}
    if savings.offload_teachers:
        largest = max(teacher_weights, key=lambda name: teacher_weights[name], default="")
        # One teacher at a time is on the device.
        working += teacher_weights.get(largest, 0)
        teacher_weights = {}
    evaluation = held + working
    parts = {
        "U-Net, frozen": student.unet,
        "VAE, frozen": student.vae,
        "separate base, as a teacher": second,
        "adapters and heads": student.learning,
        "gradients": student.learning,
        "optimizer state": _optimizer_state(settings, student.shapes),
        "moving average": student.learning,
        "weights with merged adapters": student.folded,
        **{f"{name}: weights": size for name, size in teacher_weights.items()},
        "text encoders": 0 if savings.texts else student.text + sum(t.text for t in teachers.values()),
        "student activations": student.held * settings.batch,
        "renderings": rendered.held * settings.batch,
        "teacher activations": working if evaluation >= backward else 0,
        "backward pass": backward - held if backward > evaluation else 0,
    }
    if serving:
        # The served model runs between training steps, so activations need no additional memory.
        parts["model for generation"] = student.unet + student.vae + student.text
    if cuda:
        parts["CUDA context and fragmentation"] = CONTEXT + int(GAPS * max(evaluation, backward))
    return parts


def _optimizer_state(settings: Settings, shapes: tuple[tuple[int, ...], ...]) -> int:
    """Return the bytes of the optimizer state for float32 parameters of these shapes."""
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        if settings.optimizer == "adan":
            total += 4 * size  # three moments and the previous gradient
        else:
            total += 2 * size
        if settings.optimizer == "soap":
            # A covariance and its eigenvectors per dimension.
            total += sum(2 * side**2 for side in shape if side <= _LARGEST)
    return 4 * total
