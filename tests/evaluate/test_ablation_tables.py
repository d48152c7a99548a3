"""The paper's ablation tables as data, and the runs that they ask for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from tests.helpers.full_size import UNET, VAE
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.ablation_runs import FULL_BUDGET, TOYWORLD_BUDGET, make_runs
from triplaneturbo.evaluate.ablation_tables import MATCHED_RANK, PROPOSED, TABLES, variants_of
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import check_fit, resolve_settings
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import OPEN, TOYWORLD, GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.toyworld.captions.combinations import held_out
from triplaneturbo.toyworld.scoring.ablation_specs import CLASSES, ablation_specs
from triplaneturbo.toyworld.training.train import SMALL as SMALL_RECIPE

SHARED = FinetuneConfig("shared", ("a red mushroom",))
VARIANTS = variants_of(TABLES.values())
DOMAINS = {
    TOYWORLD: (SMALL_RECIPE, GeneratorConfig.load(SMALL), TOYWORLD_BUDGET),
    OPEN: (full_recipe(), GeneratorConfig(), FULL_BUDGET),
}


def settings(domain: str, **budget: object) -> dict[str, Settings]:
    """The settings of all variants by name."""
    recipe, model, default = DOMAINS[domain]
    runs = make_runs(VARIANTS, [0], replace(default, **budget), SHARED, domain)  # type: ignore[arg-type]
    for run in runs:
        check_fit(run.config, find_domain(domain), "model")
    return {run.variant.name: resolve_settings(recipe, run.config, model) for run in runs}


def test_five_tables_of_twelve_runs_share_the_proposed_one() -> None:
    assert list(TABLES) == [2, 3, 4, 5, 6]
    assert len(VARIANTS) == len({variant.name for variant in VARIANTS}) == 12
    assert VARIANTS[0] == PROPOSED
    for table in TABLES.values():
        (proposed,) = (row for row in table.rows if row.variant == PROPOSED)
        assert (proposed.clip_score, proposed.r_at_1) == ("68.2", "32.3")
    assert [variant.name for variant in variants_of([TABLES[6]])] == ["proposed", "rank-8", "rank-32"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_run_changes_what_its_row_says(domain: str) -> None:
    found = settings(domain)
    proposed = found.pop("proposed")
    sd, mvdream, richdreamer = (
        ("sd", "rgb", "geometry") if domain == TOYWORLD else ("sd", "mvdream", "richdreamer")
    )
    everything = {sd, mvdream, richdreamer}
    assert (proposed.steps, proposed.tuning, proposed.rank, proposed.schedule_offset) == (
        4,
        "peta",
        None,
        0.0,
    )
    assert proposed.teachers.keys() == everything
    differences = {
        name: {
            key: getattr(other, key) if key != "teachers" else set(other.teachers)
            for key in vars(other)
            if getattr(other, key) != getattr(proposed, key)
        }
        for name, other in found.items()
    }
    assert differences == {
        "one-step": {"steps": 1},
        "two-steps": {"steps": 2},
        "full-tuning": {"tuning": "full"},
        "basic-lora": {"tuning": "lora", "rank": 25},
        "without-sd": {"teachers": everything - {sd}},
        "without-mvdream": {"teachers": everything - {mvdream}},
        "without-richdreamer": {"teachers": everything - {richdreamer}},
        "without-volume": {"renderings": ("surface",)},
        "without-surface": {"renderings": ("volume",)},
        "rank-8": {"rank": 8},
        "rank-32": {"rank": 32},
    }


@pytest.mark.parametrize("domain", DOMAINS)
def test_equal_passes(domain: str) -> None:
    found = settings(domain, equal="passes", iterations=10)
    assert {name: s.iterations for name, s in found.items() if s.iterations != 10} == {
        "one-step": 40,
        "two-steps": 20,
    }
    assert {s.iterations * s.steps for s in found.values()} == {40}
    assert {s.iterations for s in settings(domain, iterations=10).values()} == {10}


def test_the_scored_steps_are_at_most_k() -> None:
    found = settings(OPEN, scored_steps=3)
    assert {s.steps: s.scored_steps for s in found.values()} == {1: 1, 2: 2, 4: 3}
    assert {s.scored_steps for s in settings(OPEN).values()} == {None}


def test_the_first_seed_of_all_variants_comes_first() -> None:
    runs = make_runs(VARIANTS[:2], [3, 5], TOYWORLD_BUDGET, SHARED, TOYWORLD)
    assert [run.name for run in runs] == ["proposed-3", "one-step-3", "proposed-5", "one-step-5"]
    assert [run.config.seed for run in runs] == [3, 3, 5, 5]


def test_an_invalid_budget() -> None:
    with pytest.raises(UserError, match="The learning rate"):
        make_runs(VARIANTS, [0], replace(TOYWORLD_BUDGET, learning_rate=2.0), SHARED, TOYWORLD)


@pytest.mark.parametrize("domain", DOMAINS)
def test_basic_lora_has_the_rank_that_is_nearest_in_size(domain: str) -> None:
    model = DOMAINS[domain][1]
    parts = [UNET, VAE]
    if domain == TOYWORLD:
        parts = [json.loads((SMALL / name / "config.json").read_text()) for name in ("unet", "vae")]

    def parameters(settings: Settings) -> int:
        with torch.device("meta"):
            unet, vae = UNet2DConditionModel.from_config(parts[0]), AutoencoderKL.from_config(parts[1])
            generator = TriplaneGenerator(unet, vae, DDIMScheduler(), settings.fitted(model))
        return sum(p.numel() for p in generator.parameters() if p.requires_grad)

    peta = parameters(Settings())
    sizes = {rank: abs(parameters(Settings(tuning="lora", rank=rank)) - peta) for rank in (16, 24, 25, 32)}
    assert min(sizes, key=lambda rank: sizes[rank]) == MATCHED_RANK
    assert sizes[MATCHED_RANK] < 0.03 * peta


def test_held_out_prompts_are_scored_and_not_trained_on() -> None:
    trained, scored = ablation_specs()
    assert not held_out() & set(trained)
    assert len(held_out() & set(scored)) >= 10
    assert {spec.thing for spec in trained} == {spec.thing for spec in scored} == set(CLASSES)
    fewer = ablation_specs(3)
    assert {spec.thing for part in fewer for spec in part} == set(CLASSES[:3])
    # Any beginning of the list has all classes equally often.
    assert [spec.thing for spec in scored[:12]] == list(CLASSES)
