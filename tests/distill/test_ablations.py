"""Every ablation of the paper is available as a setting and has an effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers import toy
from tests.helpers.runs import trainer
from triplaneturbo.distill import losses, prd
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.scores import ScoreSettings
from triplaneturbo.distill.settings import Settings
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.scenes import SceneBatch
from triplaneturbo.teachers.settings import TeacherSettings

SETTINGS = replace(toy.SETTINGS, iterations=1, batch=1, nodes=12, stride=2, surface_stride=4)
RANKS = ("plane_rank", "cross_rank", "vae_rank", "conv_rank")


def parts(folder: Path, settings: Settings, teachers: Sequence = ()) -> set[str]:
    """Do one iteration that changes weights; return the parts of its log."""
    running = trainer(folder, settings, teachers=list(teachers))
    before = {name: p.clone() for name, p in running.average.items()}
    log = running.step()
    assert log["gradient"] > 0
    after = dict(running.student.generator.named_parameters())
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    return log.keys() - {"gradient", "eikonal", "opacity"}


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_number_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    rendered: list[SceneBatch] = []
    real = prd.rendering_loss

    def count(generator, planes, teachers, scenes, *rest):
        rendered.append(scenes)
        return real(generator, planes, teachers, scenes, *rest)

    monkeypatch.setattr(prd, "rendering_loss", count)
    parts(tmp_path, replace(SETTINGS, steps=steps))
    assert len(rendered) == steps


@pytest.mark.parametrize(
    ("renderings", "expected"),
    [
        (("volume",), {"rgb volume", "geometry volume"}),
        (("surface",), {"rgb surface"}),  # without normals here
        (("volume", "surface"), {"rgb volume", "rgb surface", "geometry volume"}),
    ],
)
def test_rendering_options(tmp_path: Path, renderings: tuple[str, ...], expected: set[str]) -> None:
    assert parts(tmp_path, replace(SETTINGS, renderings=renderings)) == expected


@pytest.mark.parametrize("without", ["mvdream", "richdreamer", "sd"])
def test_full_recipe_without_one_teacher(tmp_path: Path, without: str) -> None:
    """The toy teachers replace the networks under their names."""

    class Named:
        def __init__(self, teacher, name: str) -> None:
            self.teacher, self.name = teacher, name

        def __getattr__(self, name: str):
            return getattr(self.teacher, name)

    recipe = full_recipe(1)
    left = {name: how for name, how in recipe.teachers.items() if name != without}
    colors, normals = toy.teachers()
    teachers = [Named(colors, "mvdream"), Named(normals, "richdreamer"), Named(colors, "sd")]
    unguided = {name: replace(how, guidance=(1.0, 1.0), shift=0.3) for name, how in left.items()}
    actual = parts(tmp_path, replace(SETTINGS, teachers=unguided), teachers)
    assert {part.partition(" ")[0] for part in actual} == set(recipe.teachers) - {without}


@pytest.mark.parametrize("kind", ["asd", "sds", "csd"])
def test_score_kinds(tmp_path: Path, kind: str) -> None:
    teachers = {"sd": TeacherSettings(kind=kind, shift=0.3, guidance=(2.0, 2.0))}
    running = toy.student()
    settings = replace(SETTINGS, teachers=teachers)
    one = trainer(tmp_path, settings, student=running, teachers=[toy.diffusion(running)])
    assert one.step()["sd volume"] > 0


def test_options_of_a_teacher_reach_its_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[ScoreSettings] = []
    real = losses.score_gradients

    def record(teacher, seen, scenes, settings, *rest):
        used.append(settings)
        return real(teacher, seen, scenes, settings, *rest)

    monkeypatch.setattr(losses, "score_gradients", record)
    options = {"shift_level": "own", "weighting": "level", "stride": 30, "interval": 7, "sum_scenes": True}
    teacher = TeacherSettings("asd", guidance=(1.0, 1.0), clean_weight=True, **options)
    parts(tmp_path, replace(SETTINGS, teachers={"rgb": teacher}))
    assert used
    for settings in used:
        assert {name: getattr(settings, name) for name in options} == options
        assert settings.clean_weight


@pytest.mark.parametrize("rank", [8, 16, 32])
def test_adapter_ranks(tmp_path: Path, rank: int) -> None:
    settings = replace(SETTINGS, rank=rank)
    student = toy.student(settings)
    ranks = {
        min(p.shape[-2:]) if p.ndim == 3 else p.shape[0]
        for name, p in student.generator.named_parameters()
        if "lora_A" in name
    }
    assert ranks == {rank}
    one = trainer(tmp_path, settings, student=student)
    assert one.step()["gradient"] > 0


@pytest.mark.parametrize("tuning", ["peta", "lora", "full"])
def test_trained_parameters_of_each_tuning(tmp_path: Path, tuning: str) -> None:
    settings = replace(SETTINGS, tuning=tuning)
    student = toy.student(settings)
    named = dict(student.generator.named_parameters())
    learns = {name for name, p in named.items() if p.requires_grad}
    planes = {name for name in learns if "attn1" in name and named[name].ndim == 3}
    assert any("lora" in name for name in learns) == (tuning != "full")
    assert bool(planes) == (tuning == "peta")
    assert any("conv_in" in name and "lora" not in name for name in learns) == (tuning == "full")
    before = {name: p.detach().clone() for name, p in named.items()}
    one = trainer(tmp_path, settings, student=student)
    one.step()
    moved = {name for name, p in named.items() if not torch.equal(p, before[name])}
    assert moved <= learns
    assert any(name.startswith("unet") for name in moved)


def test_model_ranks_are_the_default() -> None:
    config = GeneratorConfig(plane_rank=3, cross_rank=4, vae_rank=5, conv_rank=6)
    assert Settings().fitted(config) == config
    fitted = Settings(rank=8, tuning="lora").fitted(config)
    assert fitted == replace(config, **dict.fromkeys(RANKS, 8), plane_lora=False)


def test_learning_rate_warms_up_and_decays() -> None:
    short, long = Settings(iterations=40, learning_rate=1.0), Settings(iterations=4000, learning_rate=1.0)
    assert max(short.rate_at(i) for i in range(40)) == short.rate_at(3) > 0.95
    assert short.rate_at(39) < 0.1
    assert long.rate_at(0) == pytest.approx(1 / 25)
    assert long.rate_at(24) == pytest.approx(1, rel=1e-3)
    assert Settings(iterations=40, learning_rate=0.5, anneal=False).rate_at(0) == 0.5
    later = Settings(iterations=40, schedule_offset=0.5)
    assert [later.progress_at(i) for i in (0, 20, 40)] == [0.5, 0.75, 1.0]
