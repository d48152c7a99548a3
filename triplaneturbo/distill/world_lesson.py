"""How a model of the small world learns a user's prompts: from the world's closed forms and its own base.

The solids of just these prompts are drawn into the run's folder: two seconds and 13 MB for each.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.lesson import Lesson, learner, marks, precision, settled
from triplaneturbo.distill.order import Order
from triplaneturbo.distill.prd import Draw, Place
from triplaneturbo.distill.shuffle import drawn
from triplaneturbo.errors import UserError
from triplaneturbo.generator.config import GeneratorConfig
from triplaneturbo.library import adapter
from triplaneturbo.models import Found
from triplaneturbo.parallel import Team
from triplaneturbo.teachers.base import Scenes
from triplaneturbo.world.advice import misfits
from triplaneturbo.world.captions import captions
from triplaneturbo.world.data import meaning
from triplaneturbo.world.few import FewPool, draw_few
from triplaneturbo.world.pool import RIGS, Pool
from triplaneturbo.world.train import SMALL, make_teachers, scenes

_OWN_WORDS = 0.5  # how often a prompt is learned in the user's wording, and not in another of the world's


def world_lesson(
    order: Order, found: Found, config: GeneratorConfig, team: Team, folder: Path
) -> Generator[str, None, Lesson]:
    """See `prepare.prepare`."""
    wrong = misfits(order.prompts + order.held_out)
    if wrong:
        raise UserError(f"The world cannot express {', '.join(map(repr, wrong))}: leave them out.")
    specs = [meaning(prompt) for prompt in order.prompts]
    if team.leads:
        for what in draw_few(folder / "pool", specs):
            yield f"drawing the world's {what}"
    team.wait()
    yield "loading the model"
    student = learner(order, found, config, team, torch.float32)
    pool = FewPool(folder / "pool", specs)
    full = order.tuning == "full"  # then the student's base learns, and teaches nothing
    teachers = make_teachers(student, pool, (found.base or found.folder) if full else None)
    start = adapter(order.start) if order.start else None
    settings = settled(SMALL, order, config, start)
    return Lesson(
        student, config, [teacher for teacher in teachers if teacher.name in settings.teachers],
        draw_prompts(pool, order.prompts, order.seed, team.device), settings, precision(team.device),
        marks(order, found), found.folder,
    )  # fmt: skip


def draw_prompts(pool: Pool, prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Draws every prompt equally often, in any wording, and for each step another rig and background."""

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[Scenes]:
        everyone, mine = count * place.size, place.own(count)
        numbers = drawn(len(prompts), seed, place.iteration * everyone, everyone)
        texts = [_worded(prompts[number], rng) for number in numbers]
        rigs = [int(rng.permutation(RIGS)[step % RIGS]) for step in range(steps)]
        grounds = [torch.from_numpy(rng.random((everyone, 3), dtype=np.float32)) for _ in rigs]
        return [
            scenes(pool, texts[mine], rig, ground[mine], device)
            for rig, ground in zip(rigs, grounds, strict=True)
        ]

    return draw


def _worded(prompt: str, rng: np.random.Generator) -> str:
    own, wordings = rng.random() < _OWN_WORDS, captions(meaning(prompt))
    other = wordings[int(rng.integers(len(wordings)))]
    return prompt if own else other
