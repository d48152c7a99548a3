"""A toy problem: two objects, and a student small enough to learn them within a test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from triplaneturbo.distill.prd import Place, Student
from triplaneturbo.distill.settings import Settings
from triplaneturbo.distill.student import unfreeze_base
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import ClosedFormGeometry, ClosedFormRGB, ReferenceImages
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.teachers.stable_diffusion import StableDiffusion
from triplaneturbo.toyworld.scene.solid import Builder, Solid
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, Views, see
from triplaneturbo.toyworld.training.sizes import make_scheduler
from triplaneturbo.utils.random_streams import RandomStreams

SIZE, VIEWS = 32, 4
CAPTIONS = ("a flat red box", "a tall blue stick")
SETTINGS = Settings(
    iterations=12, batch=2, steps=2, learning_rate=4e-3, size=SIZE, stride=1, nodes=24,
    sharpness=(15.0, 30.0),
    teachers={
        "rgb": TeacherSettings(shift=0.3),
        "geometry": TeacherSettings(shift=0.3, renderings=("volume",)),
    },
    eikonal=(30.0, 30.0), sparsity=(0.0, 0.0), average=0.5,
)  # fmt: skip

CONFIG = GeneratorConfig(
    plane_rank=4, cross_rank=4, vae_rank=4, conv_rank=4, plane_channels=8, mlp_width=16, mlp_bias=True,
    latent_size=8, plane_embedding=True, steps=2,
)  # fmt: skip

# The cheapest possible iteration, for tests in which the result does not matter.
CHEAP = replace(
    SETTINGS, batch=1, steps=1, stride=2, nodes=12, renderings=("volume",),
    teachers={"rgb": TeacherSettings()},
)  # fmt: skip


def cameras() -> Cameras:
    """Four sides, slightly from above."""
    return orbit([10.0, 100.0, 190.0, 280.0], 20.0, 2.5)


def solid(caption: str) -> Solid:
    """Return the object that a caption names."""
    builder = Builder()
    if caption == CAPTIONS[0]:
        builder.box((0.7, 0.7, 0.25), paint="red")
    else:
        builder.box((0.2, 0.2, 0.9), paint="blue")
    return builder.solid().placed()


@lru_cache(maxsize=2)
def views(caption: str) -> Views:
    """Views of the object that a caption names."""
    return see(solid(caption), cameras(), SIZE)


def data(
    captions: Sequence[str], scenes: SceneBatch, seen: Renderings, reads: tuple[str, ...]
) -> list[Renderings]:
    """Return the single instance of each caption (`teachers.closed_form.Data`)."""
    shown = [views(caption) for caption in captions]
    pick = (slice(None), slice(seen.first[0], None, seen.stride), slice(seen.first[1], None, seen.stride))
    paint, normal, depth = (
        torch.stack([torch.from_numpy(getattr(v, part)[pick]) for v in shown])
        for part in ("paint", "normal", "depth")
    )
    covered = (paint != NOTHING)[..., None]
    colors = torch.zeros(256, 3)
    colors[0], colors[5] = torch.tensor([0.84, 0.12, 0.13]), torch.tensor([0.12, 0.28, 0.81])
    rgb = colors[paint.long()]
    return [
        Renderings(
            rgb=torch.where(covered, rgb, scenes.background[:, None, None, None]),
            opacity=covered[..., 0].float(),
            normal=normal.float() / 127,
            depth=depth.float(),
        )
    ]


def draw(rng: np.random.Generator, count: int, steps: int, place: Place = Place()) -> list[SceneBatch]:  # noqa: B008
    """Draw both captions alternately, on random backgrounds."""
    everyone, mine = count * place.size, place.own(count)
    texts = [CAPTIONS[i % 2] for i in range(everyone)][mine]
    one = cameras()
    several = Cameras(one.c2w.repeat(count, 1, 1), one.fovy.repeat(count), one.near, one.far)
    grounds = [torch.from_numpy(rng.random((everyone, 3), dtype=np.float32)) for _ in range(steps)]
    return [SceneBatch(texts, several, VIEWS, ground[mine], rig=0) for ground in grounds]


def embed(captions: list[str]) -> Tensor:
    """Return a fixed random embedding of each caption [B, 4, 16]."""
    rows = [torch.randn(4, 16, generator=torch.Generator().manual_seed(len(text))) for text in captions]
    return torch.stack(rows)


def networks() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """Create a small U-Net and VAE, drawn from torch's global generator."""
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=(2, 4),
        cross_attention_dim=16, norm_num_groups=8, use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return unet, vae


def student(settings: Settings = SETTINGS, config: GeneratorConfig = CONFIG) -> Student:
    """Create a small student, the same at every call, with the tuning and rank of the settings."""
    torch.manual_seed(0)
    unet, vae = networks()
    generator = TriplaneGenerator(unet, vae, make_scheduler(), settings.fitted(config))
    if settings.tuning == "full":
        unfreeze_base(generator)
    return Student(generator, MergedLora(generator), embed)


def diffusion(student: Student) -> StableDiffusion:
    """Create a Stable Diffusion teacher from the student's own (random) base."""
    generator = student.generator
    return StableDiffusion(student.merged_lora.base, generator.vae, generator.scheduler, embed, 16)


def teachers() -> list[Teacher]:
    """Create both closed-form teachers."""
    alphas = make_scheduler().alphas_cumprod
    return [ClosedFormRGB(alphas, data), ClosedFormGeometry(alphas, data)]


class Broken(ClosedFormRGB):
    """A teacher whose `encode` or `predict` (`where`) returns non-finite values after some answers."""

    def __init__(self, where: str, answers: int) -> None:
        super().__init__(make_scheduler().alphas_cumprod, data)
        self.where, self.left = where, answers

    def encode(self, seen: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        return super().encode(seen, scenes, rng) * (
            math.nan if self.where == "encode" and self.left < 1 else 1
        )

    def predict(self, noisy: Tensor, times: Tensor, condition: ReferenceImages, guided: bool):
        self.left -= 1
        if self.where == "predict" and self.left < 0:
            return torch.full_like(noisy, math.inf), None
        return super().predict(noisy, times, condition, guided)


def scene(rng: torch.Generator) -> SceneBatch:
    """Return the flat red box's scene on a random background (`distill.ptd.Draw`)."""
    return SceneBatch([CAPTIONS[0]], cameras(), VIEWS, torch.rand(1, 3, generator=rng), rig=0)
