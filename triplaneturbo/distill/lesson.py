"""What a run learns from: the student, its teachers, what is drawn of the prompts, the trainer's settings.

A model of the small world is taught by the world's closed forms, for which the solids of just its prompts are
drawn, and by its own base; the full model by MVDream, RichDreamer and Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor

from triplaneturbo.devices import bfloat16_unit
from triplaneturbo.distill.order import Order
from triplaneturbo.distill.prd import Draw, Settings, Student
from triplaneturbo.errors import UserError
from triplaneturbo.generator.config import GeneratorConfig
from triplaneturbo.generator.folded import Folded
from triplaneturbo.generator.layout import lay_out_for_training
from triplaneturbo.generator.text import TextEncoder
from triplaneturbo.generator.weights import load_generator, load_text
from triplaneturbo.library import adapter
from triplaneturbo.models import Found
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import ClosedFormGeometry, ClosedFormRGB
from triplaneturbo.teachers.stable_diffusion import StableDiffusion
from triplaneturbo.world.advice import misfits
from triplaneturbo.world.combinations import LATER_SHARES
from triplaneturbo.world.data import PoolData, meaning
from triplaneturbo.world.few import FewPool, draw_few
from triplaneturbo.world.train import SMALL, make_draw
from triplaneturbo.world.views import shade


@dataclass(frozen=True)
class Lesson:
    """All that a trainer is given.

    Attributes:
        config: of the model that the student is.
        autocast: precision of the U-Net and the decoder; None: that of their weights.
    """

    student: Student
    text: TextEncoder
    config: GeneratorConfig
    teachers: Sequence[Teacher]
    draw: Draw
    settings: Settings
    autocast: torch.dtype | None


def prepare(order: Order, found: Found, device: torch.device, folder: Path) -> Generator[str, None, Lesson]:
    """Make a run's lesson; yields, between pieces of that work, what is being done.

    Args:
        folder: of the run; what has to be drawn is kept there.

    Raises:
        UserError: prompts that the model's world cannot express, a file that is missing or broken, or a
            teacher that the model does not have.
    """
    config = GeneratorConfig.load(found.folder)
    if not config.world:
        raise UserError(f"{found.name} cannot be fine-tuned yet: take the built-in model.")
    return (yield from _world(order, found, config, device, folder))


def _world(
    order: Order, found: Found, config: GeneratorConfig, device: torch.device, folder: Path
) -> Generator[str, None, Lesson]:
    wrong = misfits(order.prompts)
    if wrong:
        raise UserError(f"The world cannot express {', '.join(map(repr, wrong))}: leave them out.")
    specs = [meaning(prompt) for prompt in order.prompts]
    for what in draw_few(folder / "pool", specs):
        yield f"drawing the world's {what}"
    yield "loading the model"
    student, text = load(order, found, config, device)
    generator, pool = student.generator, FewPool(folder / "pool", specs)
    alphas, data = generator.scheduler.alphas_cumprod, PoolData(pool)
    base = StableDiffusion(
        student.folded.base, generator.vae, generator.scheduler, student.embed, 64, shade, torch.bfloat16
    )
    teachers: dict[str, Teacher] = {
        "rgb": ClosedFormRGB(alphas, data), "geometry": ClosedFormGeometry(alphas, data), "sd": base
    }  # fmt: skip
    asked = order.teachers or tuple(teachers)
    settings = replace(
        SMALL,
        iterations=order.iterations,
        batch=order.batch,
        steps=order.steps or config.steps,
        scored=order.scored or None,
        rate=order.rate,
        optimizer=order.optimizer,  # type: ignore[arg-type]
        teachers={name: how for name, how in SMALL.teachers.items() if name in asked},
        renderings=order.renderings,
        tuning=order.tuning,  # type: ignore[arg-type]
        begun=order.begun,
        seed=order.seed,
    )
    draw = make_draw(pool, specs, device, LATER_SHARES)
    quick = bfloat16_unit() is not None or device.type == "cuda"
    return Lesson(
        student, text, config, [teachers[name] for name in asked], draw, settings,
        torch.bfloat16 if quick else None,
    )  # fmt: skip


def load(
    order: Order, found: Found, config: GeneratorConfig, device: torch.device
) -> tuple[Student, TextEncoder]:
    """The student that a run begins with, and its words."""
    start = adapter(order.start) if order.start else None
    generator, _ = load_generator(found.folder, config, base=found.base, adapter=start, encoder=True)
    lay_out_for_training(generator)
    generator.vae.set_attn_processor(AttnProcessor())  # on a CPU faster backwards than the fused one
    for head in generator.heads.values():
        head.fields.offset.requires_grad_(False)
    text = load_text(found.base or found.folder)
    text.model.to(device)
    generator.to(device)
    return Student(generator, Folded(generator), text.embed), text
