"""Non-finite values return a run to its last good checkpoint and are never written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import toy
from tests.helpers.runs import learned, newest, same, trainer
from triplaneturbo.errors import UserError

SETTINGS = replace(toy.CHEAP, iterations=6, teachers={"rgb": replace(toy.CHEAP.teachers["rgb"], kind="sds")})


@pytest.mark.parametrize(("where", "what"), [("encode", "rgb volume"), ("predict", "rgb volume")])
def test_non_finite_loss_stops_at_the_last_good_checkpoint(tmp_path: Path, where: str, what: str) -> None:
    running = trainer(tmp_path, SETTINGS, teachers=[toy.Broken(where, 3)], save_every=2)
    for _ in range(3):
        running.step()
    with pytest.raises(
        UserError, match=rf"The {what} is not finite at iteration 4: lower the learning rate"
    ) as error:
        running.step()
    assert "resumes from iteration 2" in str(error.value)
    assert "\n" not in str(error.value)
    assert newest(tmp_path)["iteration"] == running.iteration == running.saved == 2
    named = {name: p for name, p in running.student.generator.named_parameters() if p.requires_grad}
    assert same(named, newest(tmp_path)["weights"])
    assert same(running.average, newest(tmp_path)["average"])
    assert all(p.grad is None for p in named.values())
    running.save()  # as a server does when it stops
    before = learned(newest(tmp_path))
    lower = trainer(tmp_path, replace(SETTINGS, learning_rate=SETTINGS.learning_rate / 2), save_every=2)
    assert lower.iteration == 2
    assert same(learned(newest(tmp_path)), before)
    lower.step()
    assert lower.iteration == 3


def test_checkpoint_followed_by_non_finite_losses_is_dropped(tmp_path: Path) -> None:
    running = trainer(tmp_path, SETTINGS, teachers=[toy.Broken("predict", 2)], save_every=1)
    running.step()
    running.step()
    with pytest.raises(UserError, match=r"at iteration 3: .*resumes from iteration 1"):
        running.step()
    assert newest(tmp_path)["iteration"] == 1


def test_first_checkpoint_is_kept(tmp_path: Path) -> None:
    running = trainer(tmp_path, SETTINGS, teachers=[toy.Broken("encode", 0)])
    for _ in range(2):
        with pytest.raises(UserError, match=r"at iteration 1: .*resumes from iteration 0"):
            running.step()
    assert newest(tmp_path)["iteration"] == 0


def test_non_finite_weights_are_not_saved(tmp_path: Path) -> None:
    running = trainer(tmp_path, replace(SETTINGS, learning_rate=math.inf), save_every=1)
    with pytest.raises(
        UserError, match="What was learned is not finite at iteration 1: lower the learning rate"
    ):
        running.step()
    assert newest(tmp_path)["iteration"] == running.iteration == 0
    assert all(bool(torch.isfinite(p).all()) for p in running.student.generator.parameters())
