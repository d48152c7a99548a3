"""Ways to train on CUDA besides the full recipe, with small models; test_training.py has the full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from tests.helpers import toy
from tests.helpers.fake_cuda import CUDA, FakeCuda
from tests.helpers.offloadable import BLOCKS, embed
from tests.helpers.small_stable_diffusion import SIZE, VIEWS, make, scenes
from triplaneturbo.distill.checkpoints import Checkpoints
from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.prd import Trainer
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.closed_form import ClosedFormGeometry, ClosedFormRGB
from triplaneturbo.teachers.offload import SequentialOffload
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.settings import Kind
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.random_streams import streams

HALF = [torch.float16, torch.bfloat16]


def _on_cuda(batch: SceneBatch) -> SceneBatch:
    return replace(batch, cameras=batch.cameras.to(CUDA), background=batch.background.to(CUDA))


def _renderings(shape: tuple[int, ...]) -> Renderings:
    parts = [torch.rand(*shape, *more, device=CUDA) for more in ((3,), (), (3,), ())]
    return Renderings(*parts)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", ["asd", "sds", "csd", "vsd", "ism"])
def test_all_scores_of_stable_diffusion(cuda: FakeCuda, kind: Kind, dtype: torch.dtype) -> None:
    generator, merged_lora, teacher = make()
    generator.to(CUDA).cast(dtype)
    own = teacher.embed
    teacher.embed = lambda texts: own(texts).to(CUDA)
    critic = LoraCritic(teacher) if kind == "vsd" else None
    settings = ScoreSettings(kind=kind, guidance=7.5)
    rng = streams((0, 0), range(2))
    merged_lora.merge()
    found = score_gradients(
        teacher, _renderings((2, VIEWS, SIZE, SIZE)), _on_cuda(scenes()), settings, rng, critic
    )
    merged_lora.unmerge()
    assert list(found.by_field) == ["rgb"]
    gradient = found.by_field["rgb"]
    assert (gradient.device, gradient.dtype, gradient.shape) == (
        CUDA,
        torch.float32,
        (2, VIEWS, SIZE, SIZE, 3),
    )
    if critic is not None:
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in critic.parameters)
        critic.step(DistributedContext(device=CUDA))


def test_a_teacher_in_main_memory(cuda: FakeCuda) -> None:
    """Its weights are on CUDA only within `on_device`."""
    unet = UNet2DConditionModel(
        **BLOCKS, layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        class_embed_type="projection", projection_class_embeddings_input_dim=16,
    )  # fmt: skip
    nn.Module.to(unet.eval().requires_grad_(False), torch.float16)
    teacher = SequentialOffload(RichDreamer(unet, lambda texts: embed(texts).to(CUDA), size=8), CUDA)
    batch = replace(_on_cuda(scenes()), prompts=["a", "b"], views=4)
    batch = replace(batch, cameras=replace(batch.cameras, c2w=batch.cameras.c2w[:1].expand(8, 4, 4),
                                           fovy=batch.cameras.fovy[:1].expand(8)))  # fmt: skip
    with teacher.on_device():
        assert all(p.device == CUDA for p in unet.parameters())
        found = score_gradients(
            teacher, _renderings((2, 4, 16, 16)), batch, ScoreSettings(guidance=5.0), streams((0,), range(2))
        )
    assert all(p.device.type == "cpu" and p.dtype == torch.float16 for p in unet.parameters())
    assert set(found.by_field) == {"normal", "depth", "opacity"}
    assert all(value.device == CUDA for value in found.by_field.values())


@pytest.fixture
def _without_checkpoints() -> Iterator[None]:
    with patch.object(Checkpoints, "save", lambda *_: None):
        yield


def _toy_data(
    captions: Sequence[str], batch: SceneBatch, seen: Renderings, reads: tuple[str, ...]
) -> list[Renderings]:
    """The toy's images, which are made on the CPU."""
    found = toy.data(captions, replace(batch, background=batch.background.cpu()), seen, reads)
    return [
        Renderings(one.rgb.to(CUDA), one.opacity.to(CUDA), one.normal.to(CUDA), one.depth.to(CUDA))
        for one in found
    ]


@pytest.mark.usefixtures("_without_checkpoints")
def test_full_tuning(cuda: FakeCuda, tmp_path: Path) -> None:
    """With Adan; SOAP is in test_toyworld.py, AdamW in test_training.py."""
    settings = replace(toy.SETTINGS, tuning="full", optimizer="adan")
    student = toy.student(settings)
    student.generator.to(CUDA)
    student = replace(student, embed=lambda texts: toy.embed(texts).to(CUDA))
    alphas = student.generator.scheduler.alphas_cumprod
    teachers = [ClosedFormRGB(alphas, _toy_data), ClosedFormGeometry(alphas, _toy_data)]

    def draw(*arguments: Any) -> list[SceneBatch]:
        return [_on_cuda(batch) for batch in toy.draw(*arguments)]

    trainer = Trainer(DistributedContext(device=CUDA), student, teachers, draw, settings, tmp_path)
    for _ in range(2):
        log = trainer.step()
    assert {"rgb volume", "rgb surface", "geometry volume"} <= set(log)
    parameters = trainer.method.parameters().values()
    assert all(p.device == CUDA and p.dtype == torch.float32 for p in parameters)
    with trainer.averaged():
        assert all(p.device == CUDA for p in parameters)
