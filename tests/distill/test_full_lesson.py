"""The full model's fine-tuning, all of it at small sizes: three teachers, a run, its adapter; what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.distill.full_toy import small_full
from triplaneturbo.converted import make_ready
from triplaneturbo.distill import prd
from triplaneturbo.distill.full_lesson import draw_views, full_lesson, load_parts
from triplaneturbo.distill.full_plan import full_plan, full_settings
from triplaneturbo.distill.lesson import Lesson
from triplaneturbo.distill.order import Order
from triplaneturbo.distill.plan import GB, Plan, Savings
from triplaneturbo.errors import UserError
from triplaneturbo.generator.config import GeneratorConfig
from triplaneturbo.models import Found, find_model
from triplaneturbo.parallel import Team

CPU = torch.device("cpu")
ORDER = Order("mine", prompts=("a red cup", "a blue hat"), iterations=2, batch=1, rate=2e-4, optimizer="adan",
              preview_every=0)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def found(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    found = find_model(str(small_full(parity, tmp_path, monkeypatch)), False)
    make_ready(found)
    return found


def lesson(order: Order, found: Found, folder: Path) -> Lesson:
    work = full_lesson(order, found, GeneratorConfig.load(found.folder), Team(), folder)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_x(found, tmp_path):
    import time
    t=time.time()
    made = lesson(ORDER, found, tmp_path / "run")
    print("lesson", time.time()-t)
    trainer = prd.Trainer(Team(), made.student, made.teachers, made.draw, made.settings, tmp_path/"run", autocast=made.autocast)
    for _ in range(2):
        t=time.time()
        print(trainer.step(), time.time()-t)
