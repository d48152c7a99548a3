"""A small Stable Diffusion teacher, with scenes and renderings for it."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.helpers.full_size import SCHEDULER
from tests.helpers.random_generator import CONFIG, bases
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.loader import Shade
from triplaneturbo.teachers.stable_diffusion import StableDiffusion

SIZE, VIEWS = 16, 3


def embed(captions: list[str]) -> Tensor:
    """Another text for each length of a caption."""
    return torch.stack(
        [torch.randn(77, 24, generator=torch.Generator().manual_seed(len(text))) for text in captions]
    )


def make(
    shading: Shade | None = None, kind: str = "epsilon"
) -> tuple[TriplaneGenerator, MergedLora, StableDiffusion]:
    unet, vae = bases()
    scheduler = DDIMScheduler(**SCHEDULER, prediction_type=kind)
    generator = TriplaneGenerator(unet, vae, scheduler, CONFIG).eval()
    merged_lora = MergedLora(generator)
    return generator, merged_lora, StableDiffusion(merged_lora.base, vae, scheduler, embed, SIZE, shading)


def scenes() -> SceneBatch:
    cameras = orbit(torch.arange(2 * VIEWS) * 50.0, 10.0, 2.5)
    return SceneBatch(["a cat", "two dogs"], cameras, VIEWS, torch.ones(2, 3))


def seen(side: int = SIZE) -> Renderings:
    shape = (2, VIEWS, side, side)
    return Renderings(torch.rand(*shape, 3), torch.ones(shape), torch.randn(*shape, 3), torch.ones(shape))
