"""The full model's recipe: released schedules and optimizer on request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.parity_files import each_file, settings_of
from triplaneturbo.distill.optimizer import make_optimizer
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import interpolate


@each_file("asd/schedules.json")
def test_released_schedules(file: Path) -> None:
    settings = full_recipe(released=True)
    # A key is the name of a value, followed by its schedule: "mv_guidance_scale[0,20,10,20000]".
    rows = [
        {key.partition("[")[0]: value for key, value in row.items()}
        for row in json.loads(file.read_text())
        if row["step"] <= settings.iterations
    ]
    assert rows
    for row in rows:
        along = row["step"] / settings.iterations
        # Rounding may differ by one.
        assert interpolate(settings.low, along) == pytest.approx(row["min_step_int"], abs=1)
        guidance = interpolate(settings.teachers["mvdream"].guidance, along)
        assert guidance == pytest.approx(row["mv_guidance_scale"], abs=1e-4)
        assert interpolate(settings.color_shrink, along) == pytest.approx(row["rgb_grad_shrink"], abs=1e-5)
        for weight in (settings.sparsity, settings.eikonal):
            # Ours is a weight of the mean over scenes, the released one of the sum.
            expected = settings.batch * row["sparsity_eikonal"]
            assert interpolate(weight, along) == pytest.approx(expected, abs=1e-5)
    assert settings.teachers["sd"].guidance == (7.5, 7.5)
    assert (settings.anneal, settings.clip) == (False, float("inf"))


def test_schedules_of_the_paper_end_with_the_run() -> None:
    settings = full_recipe(iterations=100)
    assert (settings.low, settings.eikonal, settings.sparsity) == ((500, 20), (1, 0), (1, 0))
    assert settings.color_shrink == pytest.approx((1, 0.01))
    assert settings.train_offsets
    assert settings.teachers["mvdream"].guidance == (20, 10)
    assert settings.teachers["sd"].guidance == (5, 5)
    assert {name: teacher_settings.shift for name, teacher_settings in settings.teachers.items()} == {
        "mvdream": 0.0,
        "richdreamer": 0.1,
        "sd": 0.0,
    }


@each_file("adan/case_*.safetensors")
def test_adan(file: Path) -> None:
    case = load_file(file)
    count = sum(name.endswith("_init") for name in case)
    parameters = [torch.nn.Parameter(case[f"p{k}_init"].clone()) for k in range(count)]
    optimizer = make_optimizer("adan", parameters, settings_of(file.parent)["lr"][file.stem])
    steps = 1 + max(int(name.rpartition("_")[2]) for name in case if name.startswith("g0_"))
    for step in range(steps):
        for k, p in enumerate(parameters):
            p.grad = case[f"g{k}_{step}"].clone()
        optimizer.step()
        for k, p in enumerate(parameters):
            torch.testing.assert_close(p.detach(), case[f"p{k}_{step}"], rtol=0, atol=1e-7)
