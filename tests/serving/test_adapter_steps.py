"""The engine samples an adapter with the number of denoising steps that is stored with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.adapter_files import installed_adapter
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with (
        installed_adapter("one-step", "1"),
        installed_adapter("silent", None),
        installed_adapter("broken", "abc"),
        Engine("small", device="cpu") as engine,
    ):
        yield engine


def test_an_adapter_of_one_step_is_sampled_with_one_step(engine: Engine) -> None:
    job = engine.submit(Request("a cup", adapter="one-step", **QUICK))
    assert {event.steps for event in job.events()} == {1}
    result = job.result()
    assert result.request.steps == 1
    assert to_glb(result.mesh) == to_glb(engine.generate("a cup", steps=1, **QUICK).mesh)


def test_given_steps_win_over_those_of_the_adapter(engine: Engine) -> None:
    job = engine.submit(Request("a cup", adapter="one-step", steps=3, **QUICK))
    assert {event.steps for event in job.events()} == {3}
    assert job.result().request.steps == 3


def test_adapters_without_a_number_of_steps_take_the_model_s(engine: Engine) -> None:
    steps = engine.model.config.steps
    assert steps > 1
    assert [engine.default_steps(name) for name in ("", "silent", "one-step")] == [steps, steps, 1]
    assert engine.generate("a cup", adapter="silent", **QUICK).request.steps == steps
    assert engine.generate("a cup", **QUICK).request.steps == steps


def test_requests_of_one_job_may_have_different_numbers_of_steps(engine: Engine) -> None:
    job = engine.submit(*(Request("a cup", adapter=name, **QUICK) for name in ("one-step", "silent", "")))
    own = engine.model.config.steps
    assert [outcome.request.steps for outcome in job.results()] == [1, own, own]


def test_an_invalid_number_of_steps_is_an_error_unless_steps_are_given(engine: Engine) -> None:
    with pytest.raises(UserError, match="Invalid number of denoising steps 'abc'"):
        engine.submit(Request("a cup", adapter="broken", **QUICK))
    assert engine.generate("a cup", adapter="broken", steps=2, **QUICK).request.steps == 2
