"""A full model and its three teachers, as their authors lay out their files, small and with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from tests.generator.full_size import SCHEDULER
from tests.teachers.released_files import sizes, small_teachers, small_text
from triplaneturbo.distill import full_lesson, full_plan
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.generator.adapter import save_adapter
from triplaneturbo.generator.config import GeneratorConfig
from triplaneturbo.generator.generator import Generator
from triplaneturbo.models import TeacherFiles
from triplaneturbo.teachers.mvdream import MVDream

CONFIG = GeneratorConfig(
    plane_rank=4, cross_rank=4, vae_rank=4, conv_rank=4, plane_channels=8, mlp_width=16, latent_size=8,
    grid_resolution=24, steps=2,
)  # fmt: skip


def small_full(parity: Path, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A folder with a base in diffusers' layout and a released adapter; `get_teachers` finds the teachers.

    Pictures and lattices are small, too: an iteration takes about a second.
    """
    torch.manual_seed(3)
    model = folder / "model"
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 32), layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=sizes(parity / "mvdream")["cross_attention_dim"],
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        sample_size=16, block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(**SCHEDULER)
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
        part.save_pretrained(model / name)
    small_text(model, unet.config.cross_attention_dim)
    generator = Generator(unet, vae, scheduler, CONFIG)
    save_adapter(generator, model / "released.pth")
    files = folder / "teachers"
    files.mkdir()
    teachers = TeacherFiles(**small_teachers(parity, files, patch))

    def get_teachers(names) -> TeacherFiles:
        wanted = {name: getattr(teachers, name) for name in ("mvdream", "richdreamer") if name in names}
        text = teachers.text if "richdreamer" in names else None
        return TeacherFiles(**{"mvdream": None, "richdreamer": None, **wanted}, text=text)

    def recipe(*args, **how) -> Settings:
        return replace(full_recipe(*args, **how), size=64, nodes=16, stride=4, surface_stride=2)

    patch.setattr(full_lesson, "get_teachers", get_teachers)
    patch.setattr(full_plan, "full_recipe", recipe)
    patch.setattr(MVDream.__init__, "__defaults__", _smaller(MVDream.__init__, 64))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # where the adapter is converted to
    return model


def _smaller(function, size: int) -> tuple:
    """A function's defaults with pictures of another size."""
    return tuple(size if isinstance(one, int) and one > 100 else one for one in function.__defaults__)
