"""How the full model learns a user's prompts: from MVDream, RichDreamer and Stable Diffusion."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.corpus import make_corpus
from triplaneturbo.distill.lesson import CORPUS, Lesson, learned_prompts, learner, marks, precision, settled
from triplaneturbo.distill.order import Order
from triplaneturbo.distill.prd import Draw, Place
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.shuffle import drawn
from triplaneturbo.errors import UserError
from triplaneturbo.generator.config import GeneratorConfig
from triplaneturbo.library import adapter
from triplaneturbo.models import Found, get_teachers
from triplaneturbo.parallel import Team
from triplaneturbo.render.cameras import orbit
from triplaneturbo.teachers.base import Scenes
from triplaneturbo.teachers.full import full_teachers

VIEWS = 4
_FOVY, _ELEVATIONS, _DISTANCES = 60.0, (0.0, 30.0), (0.8, 1.0)  # degrees; distances in 1 / tan(fovy / 2)


def full_lesson(
    order: Order, found: Found, config: GeneratorConfig, team: Team, folder: Path
) -> Generator[str, None, Lesson]:
    """See `lesson.prepare`."""
    if order.corpus:
        if team.leads:
            for count in make_corpus(Path(order.corpus), folder / CORPUS):
                yield f"reading the corpus: {count:,} prompts"
        team.wait()
    prompts = learned_prompts(order, folder)
    yield "looking for the teachers"
    files = get_teachers()
    yield "loading the model"
    half = torch.float16 if team.device.type == "cuda" else torch.float32
    student = learner(order, found, config, team, half, team.device.type == "cuda")
    settings = settled(
        full_recipe(order.iterations), order, config, adapter(order.start) if order.start else None
    )
    yield "loading the teachers"
    teachers = full_teachers(
        student.generator, student.folded.base, student.embed, files.mvdream, files.richdreamer, files.text
    )
    width = student.generator.unet.config.cross_attention_dim
    wanted = teachers[0].unet.config.cross_attention_dim  # type: ignore[attr-defined]
    if width != wanted:
        raise UserError(
            f"The text embeddings of {found.name} have {width} numbers, and MVDream reads {wanted}: fine-tune"
            " a model on Stable Diffusion 2.1-base."
        )
    return Lesson(
        student, config, [teacher for teacher in teachers if teacher.name in settings.teachers],
        draw_views(prompts, order.seed, team.device), settings, precision(team.device),
        marks(order, found), found.folder,
    )  # fmt: skip


def draw_views(prompts: Sequence[str], seed: int, device: torch.device) -> Draw:
    """Draws every prompt equally often, and for each step other cameras and backgrounds.

    The cameras are the paper's: four a quarter turn apart from anywhere, at one elevation of 0 to 30 degrees
    and one distance (facts/teachers.md 3).
    """

    def draw(rng: np.random.Generator, count: int, steps: int, place: Place) -> list[Scenes]:
        everyone, mine = count * place.size, place.own(count)
        numbers = drawn(len(prompts), seed, place.iteration * everyone, everyone)[mine]
        texts = [prompts[number] for number in numbers]
        out = []
        for _ in range(steps):
            turn, elevation, distance = (
                rng.random(everyone)[mine], rng.uniform(*_ELEVATIONS, everyone)[mine],
                rng.uniform(*_DISTANCES, everyone)[mine],
            )  # fmt: skip
            azimuths = (turn[:, None] + np.arange(VIEWS)) / VIEWS * 360 - 180  # [B, V]
            cameras = orbit(
                azimuths.ravel().tolist(),
                np.repeat(elevation, VIEWS).tolist(),
                (np.repeat(distance, VIEWS) / np.tan(np.radians(_FOVY) / 2)).tolist(),
                _FOVY,
            )
            ground = torch.from_numpy(rng.random((everyone, 3), dtype=np.float32))[mine]
            out.append(Scenes(texts, cameras.to(device), VIEWS, ground.to(device)))
        return out

    return draw
