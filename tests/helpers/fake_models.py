"""Models and teachers of the released sizes on fake CUDA; see `fake_cuda`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.helpers.fake_cuda import CUDA
from tests.helpers.full_size import SCHEDULER, TEXT, UNET, VAE
from triplaneturbo.distill.prd import Student
from triplaneturbo.distill.student import around
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers import mvdream, richdreamer
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.loader import TeacherContext
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import StableDiffusion


def full_generator(config: GeneratorConfig | None = None) -> TriplaneGenerator:
    """Create a generator of the released sizes in float32."""
    with CUDA:
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    return TriplaneGenerator(unet, vae, DDIMScheduler(**SCHEDULER), config or GeneratorConfig()).eval()


def full_text(dtype: torch.dtype, **sizes: Any) -> TextEncoder:
    """Create a text encoder of the released sizes, with the tokenizer of the built-in model."""
    tokenizer = CLIPTokenizer.from_pretrained(SMALL / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with CUDA:
        model = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **ends, **(sizes or TEXT)))
    return TextEncoder(tokenizer, model.to(dtype=dtype))


def full_student(frozen: torch.dtype, **options: Any) -> Student:
    """Create a student of the released sizes with frozen weights of a precision; see `student.around`."""
    return around(
        full_generator(), full_text(torch.float32), CUDA, frozen=frozen, train_offsets=True, **options
    )


def full_teachers(student: Student) -> list[Teacher]:
    """Create the three teachers of the full recipe, in the precision of the student's frozen weights."""
    context = TeacherContext(student.generator, student.merged_lora.base, student.embed, CUDA)
    with CUDA:
        views, shapes = (UNet2DConditionModel(**kind.UNET) for kind in (mvdream, richdreamer))
        vae = AutoencoderKL(**mvdream.VAE)
    for network in (views, shapes, vae):
        network.eval().requires_grad_(False)
    context.place((views, shapes, vae))
    words = full_text(
        student.generator.dtype,
        **{**richdreamer.TEXT, "hidden_size": richdreamer.UNET["cross_attention_dim"]},
    )
    generator = student.generator
    return [
        MVDream(views, vae, student.embed),
        RichDreamer(shapes, words.embed),
        StableDiffusion(student.merged_lora.base, generator.vae, generator.scheduler, student.embed, 512),
    ]
