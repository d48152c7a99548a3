"""Loading of the full model's three teachers, at small sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from tests.helpers.full_size import SCHEDULER
from tests.helpers.released_files import sizes, small_teachers
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.errors import UserError
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.load import load_teachers
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.teachers.multi_view import VIEWS


@pytest.fixture
def files(parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    return small_teachers(parity, tmp_path, monkeypatch)


@pytest.fixture
def generator(parity: Path) -> TriplaneGenerator:
    """A student whose text embedding width matches the small MVDream."""
    width = sizes(parity / "mvdream")["cross_attention_dim"]
    blocks = {
        "block_out_channels": (32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    unet = UNet2DConditionModel(**blocks, layers_per_block=1, attention_head_dim=2, cross_attention_dim=width)
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return TriplaneGenerator(unet, vae, DDIMScheduler(**SCHEDULER), GeneratorConfig())


def test_every_teacher_gives_gradients_on_its_inputs(
    files: dict[str, Path], generator: TriplaneGenerator
) -> None:
    width = generator.unet.config.cross_attention_dim

    def embed(prompts: list[str]) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(len(prompts[0]))
        return torch.randn(1, 77, width, generator=drawn).repeat(len(prompts), 1, 1)

    context = TeacherContext(generator, generator.base, embed, generator.device)
    teachers = load_teachers(by_name(files), context)
    assert [teacher.name for teacher in teachers] == list(full_recipe().teachers)
    cameras = orbit([0.0, 90.0, 180.0, 270.0], 15.0, 1.6, 60.0)
    scenes = SceneBatch(["a red mushroom"], cameras, VIEWS, torch.ones(1, 3))
    draw = torch.Generator().manual_seed(0)
    seen = Renderings(
        rgb=torch.rand(1, VIEWS, 64, 64, 3, generator=draw),
        opacity=torch.rand(1, VIEWS, 64, 64, generator=draw),
        normal=torch.randn(1, VIEWS, 64, 64, 3, generator=draw),
        depth=1 + torch.rand(1, VIEWS, 64, 64, generator=draw),
    )
    for teacher in teachers:
        actual = score_gradients(teacher, seen, scenes, ScoreSettings(guidance=5.0), draw)
        assert set(actual.by_field) == set(teacher.reads)
        for name, gradient in actual.by_field.items():
            assert gradient.shape == getattr(seen, name).shape
            assert gradient.isfinite().all()
            assert gradient.abs().max() > 0


def by_name(files: dict[str, Path]) -> dict[str, Any]:
    """Return the files as `teacher_files` does."""
    return {"mvdream": files["mvdream"], "richdreamer": (files["richdreamer"], files["text"]), "sd": None}


def test_file_of_another_teacher_is_refused(files: dict[str, Path], generator: TriplaneGenerator) -> None:
    context = TeacherContext(generator, generator.base, lambda _: torch.zeros(1), generator.device)
    with pytest.raises(UserError, match="is not a checkpoint of this teacher"):
        load_teachers({"mvdream": files["richdreamer"]}, context)


@pytest.mark.parametrize("name", ["mvdream", "richdreamer", "sd"])
def test_single_teacher_needs_only_its_own_files(
    files: dict[str, Path], generator: TriplaneGenerator, name: str
) -> None:
    context = TeacherContext(generator, generator.base, lambda _: torch.zeros(1), generator.device)
    (teacher,) = load_teachers({name: by_name(files)[name]}, context)
    assert teacher.name == name


def test_closed_forms_need_reference_renderings(generator: TriplaneGenerator) -> None:
    context = TeacherContext(generator, generator.base, lambda _: torch.zeros(1), generator.device)
    with pytest.raises(ValueError, match="reference renderings"):
        load_teachers({"rgb": None}, context)
