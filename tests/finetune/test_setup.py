"""The settings of a run that follow from its configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from tests.helpers.full_size import UNET, VAE
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.setup import check_fit, make_student, resolve_settings, resume_fingerprint
from triplaneturbo.finetune.setup_toyworld import recipe_for
from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.catalog import SMALL, ModelFiles
from triplaneturbo.models.config import OPEN, GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.toyworld.training.train import FINISHING
from triplaneturbo.toyworld.training.train import SMALL as RECIPE
from triplaneturbo.utils.distributed import DistributedContext

CONFIG = FinetuneConfig("mine", ("a red mushroom",))
MODEL = GeneratorConfig.load(SMALL)


@pytest.mark.parametrize("start", ["", "nothing"])
def test_schedules_start_at_0_with_a_new_adapter(start: str) -> None:
    settings = resolve_settings(RECIPE, replace(CONFIG, start=start), MODEL)
    assert settings.schedule_offset == (0.0 if start else 1.0)
    assert settings.start == ""


@pytest.mark.parametrize(
    ("options", "recipe"),
    [({}, FINISHING), ({"start": "nothing"}, RECIPE), ({"rank": 8}, RECIPE), ({"tuning": "full"}, RECIPE)],
)
def test_a_finished_model_of_the_toy_world_is_trained_as_it_was_finished(
    options: dict[str, Any], recipe: Settings
) -> None:
    assert recipe_for(replace(CONFIG, **options), MODEL) == recipe
    assert FINISHING.teachers != RECIPE.teachers


def test_new_adapter_has_another_resume_fingerprint() -> None:
    files = ModelFiles("small", SMALL, None, "")
    own, new = (resume_fingerprint(replace(CONFIG, start=start), files) for start in ("", "nothing"))
    assert own["prompts"] == new["prompts"]
    assert own["began with"] != new["began with"] == ""


def test_full_tuning_starts_from_a_new_adapter_only() -> None:
    replace(CONFIG, tuning="full", start="nothing").check_values()
    with pytest.raises(UserError, match="cannot start from an adapter"):
        replace(CONFIG, tuning="full", start="other").check_values()


def test_score_option_replaces_the_score_of_all_teachers() -> None:
    config = replace(CONFIG, score="ism", weighting="level", ism_stride=100, ism_interval=20)
    recipe = full_recipe(10)
    settings = resolve_settings(recipe, config, replace(MODEL, domain=OPEN))
    assert settings.teachers.keys() == recipe.teachers.keys()
    for name, teacher in settings.teachers.items():
        assert teacher == replace(
            recipe.teachers[name], kind="ism", weighting="level", stride=100, interval=20
        )
    assert resolve_settings(recipe, CONFIG, replace(MODEL, domain=OPEN)).teachers == recipe.teachers
    critics = resolve_settings(recipe, replace(config, critic_rank=8, critic_rate=1e-3), MODEL)
    assert (critics.critic_rank, critics.critic_rate) == (8, 1e-3)


def test_the_level_of_the_shift_applies_to_the_teachers_own_scores() -> None:
    recipe, model = full_recipe(10), replace(MODEL, domain=OPEN)
    settings = resolve_settings(recipe, replace(CONFIG, asd_shift_level="own"), model)
    for name, teacher in settings.teachers.items():
        assert teacher == replace(recipe.teachers[name], shift_level="own")
    with pytest.raises(UserError, match="level of ASD's shift should be t or own, not 'later'"):
        replace(CONFIG, asd_shift_level="later").check_values()


@pytest.mark.parametrize("score", ["csd", "vsd", "ism"])
def test_closed_form_teachers_refuse_csd_vsd_and_ism(score: str) -> None:
    with pytest.raises(UserError, match=f"rgb cannot give {score} scores: choose from sd"):
        check_fit(replace(CONFIG, score=score), TOY_WORLD, "small")
    check_fit(replace(CONFIG, score=score, teachers=("sd",)), TOY_WORLD, "small")
    check_fit(replace(CONFIG, score="sds"), TOY_WORLD, "small")


@pytest.mark.parametrize("start", ["", "nothing"])
def test_a_run_from_nothing_trains_a_new_adapter(start: str) -> None:
    config, context = replace(CONFIG, start=start), DistributedContext(device=torch.device("cpu"))
    settings = resolve_settings(RECIPE, config, MODEL)
    files = ModelFiles("small", SMALL, "for a test")
    student = make_student(config, files, MODEL, context, settings, torch.float32)
    up = [value for name, value in adapter_tensors(student.generator).items() if "lora_B" in name]
    assert up
    assert {bool(value.any()) for value in up} == {start == ""}


def test_ranks_24_and_25_bracket_peta_s_size() -> None:
    """Adapters of Stable Diffusion 2.1-base; the paper's basic LoRA has 22.6 million parameters."""

    def size(**options: Any) -> int:
        config = resolve_settings(full_recipe(10), replace(CONFIG, **options), GeneratorConfig())
        with torch.device("meta"):
            base = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
            generator = TriplaneGenerator(*base, DDIMScheduler(), config.fitted(GeneratorConfig()))
        return sum(value.numel() for value in adapter_tensors(generator).values())

    assert size(tuning="lora", rank=24) < size() == 22_684_160 < size(tuning="lora", rank=25)


@pytest.mark.parametrize("rank", [24, 25])
def test_lora_ranks_of_petas_size_are_valid(rank: int, tmp_path: Path) -> None:
    replace(CONFIG, tuning="lora", rank=rank).check(tmp_path)
