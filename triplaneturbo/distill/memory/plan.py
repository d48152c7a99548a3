"""Before a run: how much memory it will take, by part, what is given up for it to fit, or that it cannot.

    plan(Facts.read(folder, base), full_recipe(), memory=24 * GB).table()

What is given up is time, never a result; savings are taken in the order of what they cost, and no more of
them than are needed.
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

# CUDA's own context with its libraries; and what gaps and kernels' workspaces add to activations.
CONTEXT, GAPS = GB * 3 // 4, 0.1
_LARGEST = 256  # of SOAP's matrices; see `make_optimizer`


@dataclass(frozen=True)
class MemorySavings:
    """What a run does to take less memory, the cheapest first.

    Attributes:
        texts: text encoders work in the main memory, a prompt once.
        views: teachers encode a view at a time; see `sample_latents`.
        checkpointing: see `Generator.recompute`.
        in_turn: teachers come from the main memory one after another; see `teachers.offload`.
    """

    texts: bool = False
    views: bool = False
    checkpointing: bool = False
    offload_teachers: bool = False

    @property
    def words(self) -> list[str]:
        """What is given up, for a person."""
        told = {
            "texts": "text encoders work in the main memory (a second a new prompt)",
            "views": "teachers encode one view at a time (a third more of their encoders' time)",
            "checkpointing": "the U-Net and the decoder are computed again in the backward pass (a third more"
            " of the student's time)",
            "in_turn": "teachers come from the main memory in turn (a second or two an iteration)",
        }
        return [text for name, text in told.items() if getattr(self, name)]


LADDER = (
    MemorySavings(),
    MemorySavings(texts=True),
    MemorySavings(texts=True, views=True),
    MemorySavings(texts=True, views=True, checkpointing=True),
    MemorySavings(texts=True, views=True, checkpointing=True, offload_teachers=True),
)


@dataclass(frozen=True)
class Plan:
    """A run that fits.

    Attributes:
        parts: bytes by name, as they stand when most is needed.
        savings: what is given up.
        memory: bytes of the device.
        frozen: precision of what does not learn.
    """

    parts: dict[str, int]
    savings: MemorySavings
    memory: int
    frozen: torch.dtype

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def sentence(self) -> str:
        """How much it takes, and what is given up."""
        takes = f"The run takes {self.total / GB:.1f} of {self.memory / GB:.1f} GB"
        given = self.savings.words
        if not given:
            return f"{takes}, and nothing is given up."
        return f"{takes}, for which {', and '.join(given)}."

    def table(self) -> str:
        """The parts, a line each, and the sentence."""
        lines = [f"{name:44}{size / GB:8.2f} GB" for name, size in self.parts.items() if size]
        return "\n".join([*lines, f"{'in all':44}{self.total / GB:8.2f} GB", self.sentence])


def plan(
    facts: ModelSizes,
    settings: Settings,
    memory: int,
    *,
    frozen: torch.dtype = torch.float16,
    cuda: bool = True,
    serving: bool = True,
    apart: bool = True,
    picture: int = full.SIZE,
) -> Plan:
    """The run with no more savings than it needs.

    Args:
        facts: the model's.
        settings: the run's; its teachers are those that they name.
        memory: bytes of the device that it may have.
        frozen: precision of what does not learn.
        cuda: whether the device is a GPU, which needs some memory for itself.
        serving: whether a second copy of the model stands beside it, for generating.
        apart: whether the device has a memory of its own; else nothing is won by what lies in the main one.
        picture: side of the pictures that the base is asked with as a teacher.

    Raises:
        UserError: it does not fit; the sentence says how much it needs, and what would fit.
    """
    how = partial(_parts, facts, frozen=frozen, cuda=cuda, picture=picture)
    ladder = _steps(settings, apart)

    def fits(savings: MemorySavings, settings: Settings = settings, serving: bool = serving) -> bool:
        return sum(how(settings, savings=savings, serving=serving).values()) <= memory

    for savings in ladder:
        if fits(savings):
            # A costly one may have made a cheap one needless.
            for name in [field.name for field in fields(savings)]:
                less = replace(savings, **{name: False})
                savings = less if fits(less) else savings
            return Plan(how(settings, savings=savings, serving=serving), savings, memory, frozen)
    least = sum(how(settings, savings=ladder[-1], serving=serving).values())
    one, adapters = replace(settings, batch=1), replace(settings, tuning="peta")
    lighter = {
        "with a batch of 1": (one, serving),
        "with adapters and not the whole base": (adapters, serving),
        "with nothing served beside it": (settings, False),
        **{f"without {name}": (_without(settings, name), serving) for name in settings.teachers},
        "with a batch of 1, adapters, and nothing served beside it": (replace(one, tuning="peta"), False),
    }
    advice = next(
        (
            f"it would fit {words}"
            for words, other in lighter.items()
            if other[0].teachers and other != (settings, serving) and fits(ladder[-1], *other)
        ),
        f"take a device with {least / GB + 0.05:.1f} GB",
    )
    raise UserError(
        f"This run needs {least / GB:.1f} GB, whatever is saved, and the device has {memory / GB:.1f} GB:"
        f" {advice}."
    )


def _steps(settings: Settings, apart: bool) -> tuple[MemorySavings, ...]:
    """The savings that a run can make: a critic shares its teacher's weights, which then cannot move."""
    if not apart:
        return tuple(dict.fromkeys(replace(step, texts=False, offload_teachers=False) for step in LADDER))
    if any(how.kind == "vsd" for how in settings.teachers.values()):
        return LADDER[:-1]
    return LADDER


def _without(settings: Settings, name: str) -> Settings:
    teachers = {other: how for other, how in settings.teachers.items() if other != name}
    return replace(settings, teachers=teachers)


def _parts(
    facts: ModelSizes, settings: Settings, *, savings: MemorySavings, frozen: torch.dtype, cuda: bool, serving: bool,
    picture: int,
) -> dict[str, int]:  # fmt: skip
    """Bytes by part when most is needed: while teachers are asked, or in the backward pass."""
    student = estimate.student(
        facts, settings.fitted(facts.config), settings.tuning, frozen, savings.checkpointing
    )
    rendered = estimate.rendering(facts, estimate.key(settings), settings.renderings)
    # Else the student's own, with its adapters off.
    second = estimate.base(facts, frozen) if settings.tuning == "full" and "sd" in settings.teachers else 0
    teachers = {}
    for name, how in settings.teachers.items():
        strides = {"volume": settings.stride, "surface": settings.surface_stride}
        side = settings.size // min(strides[shown] for shown in how.renderings)
        teachers[name] = estimate.teacher(name, facts, frozen, side, picture, savings.views)
    # Teachers are asked one after another, and before the backward pass.
    working = max((asked.working for asked in teachers.values()), default=0) * settings.batch
    held = (student.held + rendered.held) * settings.batch
    backward = settings.batch * max(
        student.held + rendered.backward, max(student.backward, student.held + rendered.held)
    )
    here = {name: asked.weights for name, asked in teachers.items()}
    if savings.offload_teachers:
        one = max(here, key=lambda name: here[name], default="")
        # On the device only while they are asked.
        working += here.get(one, 0)
        here = {}
    asking = held + working
    parts = {
        "U-Net, frozen": student.unet,
        "VAE, frozen": student.vae,
        "the base, as a teacher": second,
        "adapters and heads": student.learning,
        "their gradients": student.learning,
        "the optimiser's state": _optimizer_state(settings, student.shapes),
        "their moving average": student.learning,
        "weights that adapters are folded into": student.folded,
        **{f"{name}: weights": size for name, size in here.items()},
        "text encoders": 0 if savings.texts else student.text + sum(a.text for a in teachers.values()),
        "the student's activations": student.held * settings.batch,
        "renderings": rendered.held * settings.batch,
        "a teacher at work": working if asking >= backward else 0,
        "the backward pass": backward - held if backward > asking else 0,
    }
    if serving:
        # Half of the VAE, its decoder, generates; between the steps, so that activations share their place.
        parts["the model that serves beside"] = student.unet + student.vae + student.text
    if cuda:
        parts["CUDA's own, and gaps"] = CONTEXT + int(GAPS * max(asking, backward))
    return parts


def _optimizer_state(settings: Settings, shapes: tuple[tuple[int, ...], ...]) -> int:
    """Bytes that the optimiser keeps of parameters of these shapes; it works in float32."""
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        if settings.optimizer == "adan":
            total += 4 * size  # three moments and the last gradient
        else:
            total += 2 * size
        if settings.optimizer == "soap":
            # Of each side a covariance and its eigenvectors.
            total += sum(2 * side**2 for side in shape if side <= _LARGEST)
    return 4 * total
