"""Time and memory estimates of the Advanced tab."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.ui.training.lengths import CUSTOM, estimates, memory, panel


def engine(seen: list[FinetuneConfig]) -> Any:
    def estimate_run(config: FinetuneConfig) -> Estimate:
        seen.append(config)
        return Estimate(60.0 * config.iterations, 10**8 * config.batch, "")

    return SimpleNamespace(domain=TOY_WORLD, estimate_run=estimate_run)


def test_custom_settings_are_estimated_if_no_preset_has_them() -> None:
    seen: list[FinetuneConfig] = []
    settings = {"steps": 0, **TOY_WORLD.presets["short"]}
    found = estimates(engine(seen), ["a red cup"], ["a hat"], settings)
    assert list(found) == ["Try", "Short", "Thorough"]
    assert [config.iterations for config in seen] == [50, 600, 3000]
    assert {(config.prompts, config.held_out) for config in seen} == {(("a red cup",), ("a hat",))}
    found = estimates(engine(seen), ["a red cup"], [], settings | {"iterations": 7})
    assert found[CUSTOM].seconds == 420
    assert seen[-1].iterations == 7


def test_presets_are_estimated_with_the_other_settings() -> None:
    seen: list[FinetuneConfig] = []
    settings = {"steps": 0, **TOY_WORLD.presets["try"], "teachers": ["rgb"], "rank": 8}
    assert CUSTOM not in estimates(engine(seen), ["a red cup"], [], settings)
    assert [(config.teachers, config.rank) for config in seen] == [(("rgb",), 8)] * 3


@pytest.mark.parametrize("wrong", [None, -1, "many"])
def test_invalid_settings_are_not_estimated(wrong: Any) -> None:
    found = estimates(engine([]), ["a red cup"], [], {"steps": 0, **TOY_WORLD.presets["try"], "batch": wrong})
    assert list(found) == ["Try", "Short", "Thorough"]


def test_panel_has_a_row_for_every_preset() -> None:
    empty, full = panel({}), panel({"Try": Estimate(240.0, 2_300_000_000, "")})
    assert empty.count("<dt>") == full.count("<dt>") == 4
    assert "4 min" in full
    assert "2.1 GB" in full
    assert memory(None) == "–"


def test_panel_explains_missing_estimates() -> None:
    told = panel({"Try": Estimate(None, None, 'it needs "80" GB', "not here")})
    assert "not here" in told
    assert 'title="it needs &quot;80&quot; GB"' in told
