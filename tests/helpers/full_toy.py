"""A small full model and its three teachers with random weights, in the released file layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from tests.helpers.full_size import SCHEDULER
from tests.helpers.released_files import sizes, small_teachers, small_text
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.finetune import memory_plan, setup_full
from triplaneturbo.models.adapter import save_adapter
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer

CONFIG = GeneratorConfig(
    plane_rank=4, cross_rank=4, vae_rank=4, conv_rank=4, plane_channels=8, mlp_width=16, latent_size=8,
    grid_resolution=24, steps=2,
)  # fmt: skip


def small_full(parity: Path, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Create a folder with a diffusers base and a released adapter.

    Patches `teacher_files` to return small teachers, and reduces image and grid sizes.
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
    generator = TriplaneGenerator(unet, vae, scheduler, CONFIG)
    save_adapter(generator, model / "released.pth")
    files = folder / "teachers"
    files.mkdir()
    small = small_teachers(parity, files, patch)
    teachers = {"mvdream": small["mvdream"], "richdreamer": (small["richdreamer"], small["text"]), "sd": None}

    def teacher_files(names: Iterable[str]) -> dict[str, Any]:
        return {name: teachers[name] for name in names}

    def recipe(*args, **how) -> Settings:
        return replace(full_recipe(*args, **how), size=32, nodes=12, stride=4, surface_stride=2)

    patch.setattr(setup_full, "teacher_files", teacher_files)
    patch.setattr(memory_plan, "full_recipe", recipe)
    for kind, size in ((MVDream, 32), (RichDreamer, 8)):
        text, _, *others = kind.__init__.__defaults__
        patch.setattr(kind.__init__, "__defaults__", (text, size, *others))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # the converted adapter is cached there
    return model
